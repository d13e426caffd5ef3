/* All cases from C99, calls from several threads at once, and calls after fork. */
#define _POSIX_C_SOURCE 200809L
#include "cases.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct training {
    adamant_pool *pool;
    float last;
} training;

static void *train(void *argument) {
    training *it = (training *)argument;
    train_alone(it->pool, &it->last);
    return NULL;
}

static void threads_train_at_once_on_different_data(void) {
    training all[4];
    pthread_t threads[4];
    adamant_pool *pool = NULL;
    int i;
    OK(adamant_pool_new(2, &pool));
    for (i = 0; i < 4; ++i) {
        all[i].pool = i % 2 ? pool : NULL;
        all[i].last = NAN;
        CHECK(pthread_create(&threads[i], NULL, train, &all[i]) == 0);
    }
    for (i = 0; i < 4; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < 4; ++i) CHECK(all[i].last == all[0].last && all[i].last < 0.0f);
    adamant_pool_free(pool);
}

/* The threads of both pools, the parent's own and the default one, are gone in the child. */
static void a_child_of_fork_steps_with_the_pools_of_its_parent(void) {
    adamant_pool *pool = NULL;
    float last = NAN, again = NAN;
    int status = -1;
    pid_t child;
    OK(adamant_pool_new(2, &pool));
    train_alone(pool, &last);
    train_alone(NULL, &again);
    CHECK(last == again);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(adamant_pool_threads(pool) == 1);
        train_alone(pool, &again);
        CHECK(last == again);
        train_alone(NULL, &again);
        CHECK(last == again);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    adamant_pool_free(pool);
}

int main(int count, char **arguments) {
    run_all(count - 1, arguments + 1);
    if (count != 2) {
        threads_train_at_once_on_different_data();
        a_child_of_fork_steps_with_the_pools_of_its_parent();
    }
    puts("check.c: passed");
    return 0;
}
