// Threads for the tasks of one call.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#ifndef _WIN32
#include <pthread.h>
#endif

namespace ketfit {

// Tells the processor that this thread waits in a loop.
inline void pause_cpu() {
#ifdef KETFIT_X86
    __builtin_ia32_pause();
#endif
}

// Waits for `condition` in a loop, at most 0.4 ms, and returns whether it came true. To sleep and be woken takes a good
// part of the time of a small training step, and the next step comes soon.
template <class F>
bool spin_until(F condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(400);
    do {
        for (int i = 0; i < 64; ++i) {
            if (condition()) return true;
            pause_cpu();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// Tasks next to end - 1 wait.
struct TaskRange {
    alignas(64) std::atomic<int64_t> next{0};
    int64_t end = 0;
};

// The tasks of a call, as one thread takes them: first its own range, and then what is left of the others'. A thread's
// own range is the same at every call with so many tasks, because what it wrote there the last time may still be in its
// cache.
class TaskQueue {
 public:
    TaskQueue(TaskRange* ranges, int n_threads, int thread) : thread(thread), ranges_(ranges), n_threads_(n_threads) {}

    // Takes a task; false if none is left.
    bool next(int64_t& task) {
        for (; n_finished_ < n_threads_; ++n_finished_) {
            TaskRange& range = ranges_[(thread + n_finished_) % n_threads_];
            task = range.next++;
            if (task < range.end) return true;
        }
        return false;
    }

    const int thread;  // number of this thread, 0 for the caller

 private:
    TaskRange* const ranges_;
    const int n_threads_;
    int n_finished_ = 0;  // ranges in which no task is left
};

// Threads that sleep between calls. One call has them at a time. A call from another Python thread meanwhile runs on
// its own thread alone, so that callers that are parallel already do not oversubscribe the processor.
class ThreadPool {
 public:
    static ThreadPool& get() {
        static ThreadPool* pool = [] {
#ifndef _WIN32
            // A forked child has no workers: it starts with a new pool.
            pthread_atfork(nullptr, nullptr, [] { new (storage()) ThreadPool; });
#endif
            return new (storage()) ThreadPool;
        }();
        return *pool;
    }

    // Calls task(i, thread) for every i < count, on at most n_threads threads; `thread` numbers them from 0.
    template <class F>
    void for_each(int64_t count, int n_threads, F task) {
        run(count, n_threads, [&](TaskQueue& queue) {
            for (int64_t i; queue.next(i);) task(i, queue.thread);
        });
    }

    // Calls work(queue) once on each of at most n_threads threads; it returns when `queue` has no more tasks.
    void run(int64_t count, int n_threads, const std::function<void(TaskQueue&)>& work) {
        n_threads = int(std::min<int64_t>(n_threads, count));
        std::unique_lock<std::mutex> call_lock(call_mutex_, std::defer_lock);
        if (n_threads < 2 || !call_lock.try_lock()) {
            TaskRange all;
            all.end = count;
            TaskQueue queue(&all, 1, 0);
            work(queue);
            return;
        }
        while (n_workers_ < n_threads - 1) {
            const int thread = ++n_workers_;
            std::thread([this, thread] { work_for_calls(thread); }).detach();
        }
        divide(count, n_threads);
        work_ = &work;
        call_ = (call_ | thread_mask) + 1 + uint64_t(n_threads);
        if (n_sleeping_ > 0) {
            std::lock_guard<std::mutex> lock(sleep_mutex_);
            wake_.notify_all();
        }
        take_part(0);
        call_ = (call_ | thread_mask) + 1;  // closed: a worker that has not begun by now is not waited for
        if (spin_until([this] { return n_active_ == 0; })) return;
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        caller_waits_ = true;
        done_.wait(lock, [this] { return n_active_ == 0; });
        caller_waits_ = false;
    }

 private:
    static constexpr uint64_t thread_mask = 0xffff;

    // The pool is never destroyed, because its threads are detached.
    static void* storage() {
        alignas(64) static unsigned char bytes[1024];
        static_assert(sizeof(ThreadPool) <= sizeof bytes);
        return bytes;
    }

    void divide(int64_t count, int n_threads) {
        if (n_threads > n_ranges_) {
            ranges_.reset(new TaskRange[size_t(n_threads)]);
            n_ranges_ = n_threads;
        }
        n_threads_ = n_threads;
        for (int thread = 0; thread < n_threads; ++thread) {
            ranges_[size_t(thread)].next = count * thread / n_threads;
            ranges_[size_t(thread)].end = count * (thread + 1) / n_threads;
        }
    }

    void take_part(int thread) {
        TaskQueue queue(ranges_.get(), n_threads_, thread);
        (*work_)(queue);
    }

    void work_for_calls(int thread) {
        for (uint64_t seen = 0;;) {
            const auto is_called = [&] { return call_ != seen && thread < int(call_ & thread_mask); };
            if (!spin_until(is_called)) {
                std::unique_lock<std::mutex> lock(sleep_mutex_);
                ++n_sleeping_;
                wake_.wait(lock, is_called);
                --n_sleeping_;
            }
            seen = call_;
            ++n_active_;
            // The call may have been closed, and its data may be gone, before n_active_ was counted up.
            if (call_ == seen && thread < int(seen & thread_mask)) take_part(thread);
            if (--n_active_ == 0 && caller_waits_) {
                std::lock_guard<std::mutex> lock(sleep_mutex_);
                done_.notify_one();
            }
        }
    }

    std::mutex call_mutex_;   // held by the call that has the workers
    std::mutex sleep_mutex_;  // for the two conditions
    std::condition_variable wake_, done_;
    const std::function<void(TaskQueue&)>* work_ = nullptr;
    std::unique_ptr<TaskRange[]> ranges_;
    int n_ranges_ = 0, n_threads_ = 0, n_workers_ = 0;
    std::atomic<uint64_t> call_{0};  // upper bits: count openings and closings; last 16: threads of an open call, or 0
    std::atomic<int> n_active_{0}, n_sleeping_{0};
    std::atomic<bool> caller_waits_{false};
};

}  // namespace ketfit
