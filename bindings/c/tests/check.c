/* All cases from C99, calls from several threads at once, and calls without the threads that they ask for. */
#define _POSIX_C_SOURCE 200809L
#include "cases.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The seconds after which SIGALRM ends a case that waits for ever: in a child of fork(), and in its parent. */
enum { LIMIT = 60, LIMIT_OF_PARENT = LIMIT + 10 };

static void within_limit(void (*run)(void)) {
    alarm(LIMIT_OF_PARENT);
    run();
    alarm(0);
}

/* Runs a case in a child, and fails if it does. */
static void in_a_child(void (*run)(void *), void *argument) {
    int status = -1;
    pid_t child;
    /* Otherwise the child prints it too. */
    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        /* That of the parent is not inherited. */
        alarm(LIMIT);
        run(argument);
        fflush(stdout);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

typedef struct training {
    adamant_pool *pool;
    float last;
} training;

static void *train(void *argument) {
    training *it = (training *)argument;
    train_alone(it->pool, &it->last);
    return NULL;
}

/* A training and a norm, both large enough for several threads, have the results of one thread. */
static void calls_end_with(adamant_pool *pool, float expected) {
    enum { COUNT = 1 << 20 };
    float *ones = (float *)malloc(COUNT * sizeof *ones), last = NAN;
    double norm = NAN;
    adamant_exec exec;
    adamant_array grad = array_of(ones, COUNT, ADAMANT_F32);
    int i;
    CHECK(ones != NULL);
    for (i = 0; i < COUNT; ++i) ones[i] = 1;
    OK(adamant_exec_init(&exec, sizeof exec));
    exec.threads = pool ? ADAMANT_THREADS_POOL : ADAMANT_THREADS_DEFAULT;
    exec.pool = pool;
    OK(adamant_grad_norms(ADAMANT_NORM_TWO, &exec, &grad, 1, NULL, &norm));
    CHECK(norm == 1024);
    train_alone(pool, &last);
    CHECK(last == expected);
    free(ones);
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

static pthread_mutex_t lock;

static void *train_under_the_lock(void *argument) {
    /* A thread that runs the work of others while it waits would come here again: an error of this lock. */
    CHECK(pthread_mutex_lock(&lock) == 0);
    train(argument);
    CHECK(pthread_mutex_unlock(&lock) == 0);
    return train(argument);
}

static void threads_that_share_a_lock_train_under_it(void) {
    training all[4];
    pthread_t threads[4];
    pthread_mutexattr_t attributes;
    adamant_pool *pool = NULL;
    int i;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK) == 0);
    CHECK(pthread_mutex_init(&lock, &attributes) == 0);
    OK(adamant_pool_new(3, &pool));
    for (i = 0; i < 4; ++i) {
        all[i].pool = i % 2 ? pool : NULL;
        CHECK(pthread_create(&threads[i], NULL, train_under_the_lock, &all[i]) == 0);
    }
    for (i = 0; i < 4; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < 4; ++i) CHECK(all[i].last == all[0].last && all[i].last < 0.0f);
    adamant_pool_free(pool);
    CHECK(pthread_mutex_destroy(&lock) == 0);
}

enum { MOST_TENSORS = 40 };

/* A step of so many tensors, each in memory of its own. */
static void step_of(size_t count) {
    static float arrays[4][MOST_TENSORS][8];
    static uint64_t steps[MOST_TENSORS];
    adamant_tensor tensors[MOST_TENSORS];
    adamant_optimizer *adam = optimizer_of("adam");
    adamant_group group = {sizeof group, NULL, NULL, 0};
    size_t i;
    for (i = 0; i < count; ++i) {
        adamant_tensor_init(&tensors[i], sizeof tensors[i]);
        tensors[i].param = array_of(arrays[0][i], 4, ADAMANT_F32);
        tensors[i].grad = array_of(arrays[1][i], 4, ADAMANT_F32);
        tensors[i].moments[0] = array_of(arrays[2][i], 4, ADAMANT_F32);
        tensors[i].moments[1] = array_of(arrays[3][i], 4, ADAMANT_F32);
        tensors[i].steps = &steps[i];
    }
    group.optimizer = adam;
    group.tensors = tensors;
    group.tensor_count = count;
    OK(adamant_step(&group, 1, NULL, NULL, NULL));
    adamant_optimizer_free(adam);
}

static void step_at_the_end(void *unused) {
    (void)unused;
    step_of(1);
    step_of(3);
    step_of(MOST_TENSORS);
}

static void *step_with_an_end(void *key) {
    CHECK(pthread_setspecific(*(pthread_key_t *)key, key) == 0);
    /* So that the library has values of this thread, which are gone at its end. */
    step_of(MOST_TENSORS);
    return NULL;
}

static void a_thread_that_is_about_to_end_takes_steps(void) {
    pthread_key_t key;
    pthread_t thread;
    CHECK(pthread_key_create(&key, step_at_the_end) == 0);
    CHECK(pthread_create(&thread, NULL, step_with_an_end, &key) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(pthread_key_delete(key) == 0);
}

static void train_after_fork(void *argument) {
    const training *parent = (const training *)argument;
    adamant_pool *own = NULL;
    CHECK(adamant_pool_threads(parent->pool) == 1);
    calls_end_with(parent->pool, parent->last);
    calls_end_with(NULL, parent->last);
    OK(adamant_pool_new(2, &own));
    CHECK(adamant_pool_threads(own) == 2);
    calls_end_with(own, parent->last);
    adamant_pool_free(own);
}

/* The threads of both pools, the parent's own and the default one, are gone in the child. */
static void a_child_of_fork_trains_with_the_pools_of_its_parent(void) {
    training it = {NULL, NAN};
    OK(adamant_pool_new(2, &it.pool));
    train(&it);
    calls_end_with(NULL, it.last);
    in_a_child(train_after_fork, &it);
    adamant_pool_free(it.pool);
}

static void list_optimizers(void *unused) {
    size_t i;
    (void)unused;
    for (i = 0; adamant_optimizer_name(i); ++i) CHECK(*adamant_optimizer_name(i) != 0);
}

static volatile sig_atomic_t is_listed;

static void *list_again_and_again(void *unused) {
    while (!is_listed) list_optimizers(unused);
    return NULL;
}

/* The other thread is gone in the child, with all that it held. */
static void a_child_of_fork_lists_optimizers_while_another_thread_does(void) {
    pthread_t other;
    int i;
    CHECK(pthread_create(&other, NULL, list_again_and_again, NULL) == 0);
    for (i = 0; i < 50; ++i) in_a_child(list_optimizers, NULL);
    is_listed = 1;
    CHECK(pthread_join(other, NULL) == 0);
}

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = stopped + 1;
    for (;;) pause();
}

/* Keeps all threads of pools busy for the rest of this process, and trains without them. */
static void train_while_pools_are_busy(void *unused) {
    /* A pool of three threads has two of its own beside the calling one; the default pool has two. */
    enum { WORKERS = 4 };
    const struct timespec long_enough_to_sleep = {0, 200000000}, moment = {0, 1000000};
    struct sigaction action;
    sigset_t signals;
    adamant_pool *pool = NULL;
    float expected = NAN;
    int i;
    (void)unused;
    CHECK(setenv("RAYON_NUM_THREADS", "2", 1) == 0);
    OK(adamant_pool_new(3, &pool));
    train_alone(pool, &expected);
    calls_end_with(NULL, expected);
    /* A signal for the process stops one of the threads that do not block it. A thread that sleeps holds no lock. */
    CHECK(sigemptyset(&signals) == 0 && sigaddset(&signals, SIGUSR1) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    nanosleep(&long_enough_to_sleep, NULL);
    for (i = 0; i < WORKERS; ++i) {
        CHECK(kill(getpid(), SIGUSR1) == 0);
        while (stopped == i) nanosleep(&moment, NULL);
    }
    calls_end_with(pool, expected);
    calls_end_with(NULL, expected);
}

static void calls_do_not_wait_for_busy_pools(void) {
    in_a_child(train_while_pools_are_busy, NULL);
}

#ifdef RLIMIT_NPROC
static void *end_at_once(void *unused) {
    return unused;
}

static void train_without_threads(void *unused) {
    enum { NOBODY = 65534 };
    const struct rlimit none = {0, 0};
    adamant_pool *pool = NULL;
    pthread_t thread;
    float expected = NAN;
    int i;
    (void)unused;
    /* There is no limit for root. */
    if (geteuid() == 0 && setuid(NOBODY) != 0) {
        puts("no threads: skipped, since this process cannot become nobody's");
        return;
    }
    CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
    if (pthread_create(&thread, NULL, end_at_once, NULL) == 0) {
        CHECK(pthread_join(thread, NULL) == 0);
        puts("no threads: skipped, since this system has no such limit");
        return;
    }
    EXPECT(ADAMANT_NO_THREADS, adamant_pool_new(2, &pool));
    CHECK(pool == NULL);
    OK(adamant_pool_new(1, &pool));
    train_alone(pool, &expected);
    /* Twice, since the default pool is asked for its threads by each call. */
    for (i = 0; i < 2; ++i) calls_end_with(NULL, expected);
    adamant_pool_free(pool);
}

static void calls_work_where_the_system_refuses_threads(void) {
    in_a_child(train_without_threads, NULL);
}
#endif

int main(int count, char **arguments) {
    if (count != 2) {
        /* Before the library has a pool: the children start theirs. */
        within_limit(calls_do_not_wait_for_busy_pools);
#ifdef RLIMIT_NPROC
        within_limit(calls_work_where_the_system_refuses_threads);
#endif
    }
    run_all(count - 1, arguments + 1);
    if (count != 2) {
        within_limit(threads_train_at_once_on_different_data);
        within_limit(threads_that_share_a_lock_train_under_it);
        within_limit(a_thread_that_is_about_to_end_takes_steps);
        within_limit(a_child_of_fork_trains_with_the_pools_of_its_parent);
        within_limit(a_child_of_fork_lists_optimizers_while_another_thread_does);
    }
    puts("check.c: passed");
    return 0;
}
