#include "buffer_pool.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <thread>

using namespace ketfit;

TEST_CASE("BufferPool gives a released block again for the same size only") {
    BufferPool pool;
    void* block = pool.acquire(1000);
    pool.release(1000, block);
    CHECK(pool.n_blocks() == 1);
    void* other = pool.acquire(1001);
    CHECK(other != block);
    CHECK(pool.acquire(1000) == block);
    CHECK(pool.n_blocks() == 0);
    pool.release(1000, block);
    pool.release(1001, other);
}

TEST_CASE("BufferPool aligns blocks to cache lines") {
    BufferPool pool;
    for (size_t size : {0, 1, 8, 100, 5000}) {
        void* block = pool.acquire(size);
        CHECK(reinterpret_cast<uintptr_t>(block) % 64 == 0);
        pool.release(size, block);
    }
}

TEST_CASE("BufferPool frees large blocks") {
    BufferPool pool;
    pool.release(BufferPool::max_block_bytes + 1, pool.acquire(BufferPool::max_block_bytes + 1));
    CHECK(pool.n_blocks() == 0);
    pool.release(BufferPool::max_block_bytes, pool.acquire(BufferPool::max_block_bytes));
    CHECK(pool.n_blocks() == 1);
}

TEST_CASE("BufferPool frees the oldest block when it is full") {
    BufferPool pool;
    void* oldest = pool.acquire(1);
    void* newest = nullptr;
    pool.release(1, oldest);
    for (size_t size = 2; size <= BufferPool::max_blocks + 1; ++size) {
        newest = pool.acquire(size);
        pool.release(size, newest);
    }
    CHECK(pool.n_blocks() == BufferPool::max_blocks);
    CHECK(pool.acquire(BufferPool::max_blocks + 1) == newest);
    CHECK(pool.n_blocks() == BufferPool::max_blocks - 1);
    void* fresh = pool.acquire(1);
    CHECK(pool.n_blocks() == BufferPool::max_blocks - 1);
    pool.release(BufferPool::max_blocks + 1, newest);
    pool.release(1, fresh);
}

TEST_CASE("BufferPool is one for each thread") {
    BufferPool *mine = &BufferPool::of_this_thread(), *other = nullptr;
    std::thread([&] { other = &BufferPool::of_this_thread(); }).join();
    CHECK(mine != other);
    CHECK(mine == &BufferPool::of_this_thread());
}

TEST_CASE("Buffer copies its numbers and returns its memory") {
    const BufferPool& pool = BufferPool::of_this_thread();
    const size_t before = pool.n_blocks();
    {
        Buffer<double> buffer(12345);
        for (size_t i = 0; i < buffer.size; ++i) buffer.data[i] = double(i);
        const Buffer<double> copy(buffer);
        CHECK(copy.data != buffer.data);
        CHECK(copy.size == 12345);
        CHECK(copy.data[12344] == 12344);
    }
    CHECK(pool.n_blocks() == before + 2);
    const Buffer<double> reused(12345);
    CHECK(pool.n_blocks() == before + 1);
}
