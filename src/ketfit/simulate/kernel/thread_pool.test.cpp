#include "thread_pool.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <thread>
#include <vector>

using namespace ketfit;

namespace {

// How often each of `count` tasks was done, and that threads had valid numbers.
std::vector<int> count_tasks(int64_t count, int n_threads) {
    std::vector<std::atomic<int>> done(size_t(count) + 1);
    ThreadPool::get().for_each(count, n_threads, [&](int64_t task, int thread) {
        ++done[size_t(task)];
        if (thread < 0 || thread >= n_threads) ++done[size_t(count)];
    });
    return {done.begin(), done.end()};
}

std::vector<int> each_once(int64_t count) {
    std::vector<int> once(size_t(count) + 1, 1);
    once.back() = 0;
    return once;
}

}  // namespace

TEST_CASE("ThreadPool does every task once") {
    for (const int n_threads : {1, 2, 3, 7, 2})
        for (const int64_t count : {0, 1, 2, 5, 64, 1000}) {
            INFO(count, " tasks on ", n_threads, " threads");
            CHECK(count_tasks(count, n_threads) == each_once(count));
        }
}

TEST_CASE("ThreadPool does every task once in many short calls") {
    for (int repeat = 0; repeat < 2000; ++repeat) REQUIRE(count_tasks(3, 3) == each_once(3));
}

TEST_CASE("ThreadPool wakes threads that sleep") {
    for (int repeat = 0; repeat < 5; ++repeat) {
        CHECK(count_tasks(100, 3) == each_once(100));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than they spin
    }
}

TEST_CASE("ThreadPool waits for tasks that take longer than it spins") {
    std::atomic<int> done{0};
    ThreadPool::get().for_each(4, 2, [&](int64_t, int) {
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
        ++done;
    });
    CHECK(done == 4);
}

TEST_CASE("ThreadPool runs a call during another call on the calling thread") {
    std::atomic<int> strangers{0}, done{0};
    ThreadPool::get().for_each(2, 2, [&](int64_t, int) {
        const auto caller = std::this_thread::get_id();
        ThreadPool::get().for_each(10, 4, [&](int64_t, int thread) {
            ++done;
            strangers += std::this_thread::get_id() != caller || thread != 0;
        });
    });
    CHECK(done == 20);
    CHECK(strangers == 0);
}

TEST_CASE("ThreadPool serves callers on several threads at once") {
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 50; ++repeat) wrong += count_tasks(20, 3) != each_once(20);
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(wrong == 0);
}

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("ThreadPool works in a forked child") {
    CHECK(count_tasks(10, 3) == each_once(10));
    const pid_t child = fork();
    if (child == 0) _exit(count_tasks(10, 3) == each_once(10) ? 0 : 1);
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}
#endif

TEST_CASE("TaskQueue begins with its own range and goes on with the others'") {
    TaskRange ranges[3];
    for (int k = 0; k < 3; ++k) {
        ranges[k].next = 10 * k;
        ranges[k].end = 10 * k + 2;
    }
    TaskQueue queue(ranges, 3, 1);
    std::vector<int64_t> tasks;
    for (int64_t task; queue.next(task);) tasks.push_back(task);
    CHECK(tasks == std::vector<int64_t>{10, 11, 20, 21, 0, 1});
}

TEST_CASE("spin_until gives up") {
    CHECK(spin_until([] { return true; }));
    CHECK_FALSE(spin_until([] { return false; }));
}
