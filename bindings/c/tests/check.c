/* All cases from C99, and calls from several threads at once. */
#include "cases.h"

#include <pthread.h>

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

int main(int count, char **arguments) {
    run_all(count - 1, arguments + 1);
    if (count != 2) threads_train_at_once_on_different_data();
    puts("check.c: passed");
    return 0;
}
