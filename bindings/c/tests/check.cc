// All cases from C++17, and calls from several threads at once.
#include "cases.h"

#include <array>
#include <memory>
#include <thread>
#include <vector>

static void threads_train_at_once_on_different_data() {
    adamant_pool *handle = nullptr;
    OK(adamant_pool_new(2, &handle));
    const std::unique_ptr<adamant_pool, void (*)(adamant_pool *)> pool{handle, adamant_pool_free};
    std::array<float, 4> last{};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < last.size(); ++i)
        threads.emplace_back(train_alone, i % 2 ? pool.get() : nullptr, &last[i]);
    for (auto &thread : threads) thread.join();
    for (float found : last) CHECK(found == last[0] && found < 0.0f);
}

int main(int count, char **arguments) {
    run_all(count - 1, arguments + 1);
    if (count != 2) threads_train_at_once_on_different_data();
    puts("check.cc: passed");
}
