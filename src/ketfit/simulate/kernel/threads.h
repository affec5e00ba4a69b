// Threads for the tasks of one call, and aligned memory.

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
#include <utility>
#include <vector>
#ifndef _WIN32
#include <pthread.h>
#endif

namespace ketfit {

inline void relax() {
#ifdef KETFIT_X86
    __builtin_ia32_pause();
#endif
}

// Whether `done` came true within 0.4 ms: waking a thread costs a good part of a small step, and the next comes soon.
template <class F>
bool spin(F done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(400);
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

struct Range {
    alignas(64) std::atomic<int64_t> next{0};
    int64_t end = 0;
};

// What one thread takes of a call's tasks: first its own share, the same at every call of so many tasks, as what it
// wrote there the last time may still be in its cache and would have to come from another's; then what others have not
// begun.
class Tasks {
 public:
    Tasks(Range* ranges, int threads, int slot) : slot(slot), ranges_(ranges), threads_(threads) {}

    bool next(int64_t& task) {
        for (; tried_ < threads_; ++tried_) {
            Range& range = ranges_[(slot + tried_) % threads_];
            task = range.next++;
            if (task < range.end) return true;
        }
        return false;
    }

    const int slot;

 private:
    Range* const ranges_;
    const int threads_;
    int tried_ = 0;
};

// Threads that sleep between calls. One call has them at a time; another call meanwhile, from another Python thread,
// runs on its own thread alone, so that callers who are parallel already do not share the processor twice.
class Team {
 public:
    static Team& get() {
        static Team* team = [] {
#ifndef _WIN32
            pthread_atfork(nullptr, nullptr, [] { new (storage()) Team; });  // a forked child has no workers
#endif
            return new (storage()) Team;
        }();
        return *team;
    }

    // task(i, slot) for every i < count, slot < threads being the thread it runs on.
    template <class F>
    void each(int64_t count, int threads, F task) {
        run(count, threads, [&](Tasks& tasks) {
            for (int64_t i; tasks.next(i);) task(i, tasks.slot);
        });
    }

    // work(tasks), once on each of so many threads at most, until no task is left.
    void run(int64_t count, int threads, const std::function<void(Tasks&)>& work) {
        threads = int(std::min<int64_t>(threads, count));
        std::unique_lock<std::mutex> mine(busy_, std::defer_lock);
        if (threads < 2 || !mine.try_lock()) {
            Range all;
            all.end = count;
            Tasks tasks(&all, 1, 0);
            work(tasks);
            return;
        }
        while (workers_ < threads - 1) {
            const int slot = ++workers_;
            std::thread([this, slot] { serve(slot); }).detach();
        }
        share(count, threads);
        work_ = &work;
        call_ = (call_ | 0xffff) + 1 + uint64_t(threads);
        if (sleepers_ > 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            wake_.notify_all();
        }
        claim(0);
        call_ = (call_ | 0xffff) + 1;  // closed: whoever did not get the processor in time is not waited for
        if (spin([this] { return inside_ == 0; })) return;
        std::unique_lock<std::mutex> lock(mutex_);
        waits_ = true;
        done_.wait(lock, [this] { return inside_ == 0; });
        waits_ = false;
    }

 private:
    static void* storage() {
        alignas(64) static unsigned char bytes[1024];
        static_assert(sizeof(Team) <= sizeof bytes);
        return bytes;
    }

    void share(int64_t count, int threads) {
        if (threads > capacity_) {
            ranges_.reset(new Range[size_t(threads)]);
            capacity_ = threads;
        }
        threads_ = threads;
        for (int slot = 0; slot < threads; ++slot) {
            ranges_[size_t(slot)].next = count * slot / threads;
            ranges_[size_t(slot)].end = count * (slot + 1) / threads;
        }
    }

    void claim(int slot) {
        Tasks tasks(ranges_.get(), threads_, slot);
        (*work_)(tasks);
    }

    void serve(int slot) {
        for (uint64_t seen = 0;;) {
            const auto called = [&] { return call_ != seen && slot < int(call_ & 0xffff); };
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(mutex_);
                ++sleepers_;
                wake_.wait(lock, called);
                --sleepers_;
            }
            seen = call_;
            ++inside_;
            if (call_ == seen && slot < int(seen & 0xffff)) claim(slot);
            if (--inside_ == 0 && waits_) {
                std::lock_guard<std::mutex> lock(mutex_);
                done_.notify_one();
            }
        }
    }

    std::mutex busy_, mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(Tasks&)>* work_ = nullptr;
    std::unique_ptr<Range[]> ranges_;
    int capacity_ = 0, threads_ = 0, workers_ = 0;
    std::atomic<uint64_t> call_{0};  // counts openings and closings; the last 16 bits are an open call's threads
    std::atomic<int> inside_{0}, sleepers_{0};
    std::atomic<bool> waits_{false};
};

// Memory that a thread has used and keeps for its next call: fresh pages from the system would cost more than a step.
class Spares {
 public:
    ~Spares() {
        for (const auto& [size, block] : blocks_) ::operator delete(block, align);
    }

    static Spares& get() {
        static thread_local Spares spares;
        return spares;
    }

    void* take(size_t size) {
        for (size_t i = 0; i < blocks_.size(); ++i)
            if (blocks_[i].first == size) {
                void* block = blocks_[i].second;
                blocks_[i] = blocks_.back();
                blocks_.pop_back();
                return block;
            }
        return ::operator new(size, align);
    }

    void give(size_t size, void* block) {
        if (size > most_bytes) {
            ::operator delete(block, align);
            return;
        }
        if (blocks_.size() == most_blocks) {  // sizes of other circuits, perhaps, so the oldest goes
            ::operator delete(blocks_.front().second, align);
            blocks_.erase(blocks_.begin());
        }
        blocks_.emplace_back(size, block);
    }

 private:
    static constexpr std::align_val_t align{64};
    static constexpr size_t most_bytes = size_t(1) << 20, most_blocks = 32;
    std::vector<std::pair<size_t, void*>> blocks_;
};

template <class T>
struct Buffer {
    explicit Buffer(size_t size) : size(size), data(static_cast<T*>(Spares::get().take(size * sizeof(T)))) {}
    Buffer(const Buffer& other) : Buffer(other.size) { std::copy_n(other.data, size, data); }
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { Spares::get().give(size * sizeof(T), data); }
    const size_t size;
    T* const data;
};

}  // namespace ketfit
