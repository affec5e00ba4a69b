// Aligned memory that threads keep from call to call.

#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace ketfit {

// Blocks of memory that a thread has used and keeps for its next call: fresh pages from the system would cost more time
// than a small training step.
class BufferPool {
 public:
    static constexpr std::align_val_t alignment{64};
    static constexpr size_t max_block_bytes = size_t(1) << 20, max_blocks = 32;

    ~BufferPool() {
        for (const auto& [size, block] : blocks_) ::operator delete(block, alignment);
    }

    static BufferPool& of_this_thread() {
        static thread_local BufferPool pool;
        return pool;
    }

    // A block of `size` bytes, from the pool if it has one of exactly that size.
    void* acquire(size_t size) {
        for (size_t i = 0; i < blocks_.size(); ++i)
            if (blocks_[i].first == size) {
                void* block = blocks_[i].second;
                blocks_[i] = blocks_.back();
                blocks_.pop_back();
                return block;
            }
        return ::operator new(size, alignment);
    }

    // Takes a block back, or frees it if it is large.
    void release(size_t size, void* block) {
        if (size > max_block_bytes) {
            ::operator delete(block, alignment);
            return;
        }
        if (blocks_.size() == max_blocks) {  // the oldest one may have a size that no circuit asks for any more
            ::operator delete(blocks_.front().second, alignment);
            blocks_.erase(blocks_.begin());
        }
        blocks_.emplace_back(size, block);
    }

    size_t n_blocks() const { return blocks_.size(); }

 private:
    std::vector<std::pair<size_t, void*>> blocks_;  // sizes in bytes, and addresses
};

// An uninitialized array from the pool of the thread that makes it.
template <class T>
struct Buffer {
    explicit Buffer(size_t size)
        : size(size), data(static_cast<T*>(BufferPool::of_this_thread().acquire(size * sizeof(T)))) {}
    Buffer(const Buffer& other) : Buffer(other.size) { std::copy_n(other.data, size, data); }
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { BufferPool::of_this_thread().release(size * sizeof(T), data); }
    const size_t size;
    T* const data;
};

}  // namespace ketfit
