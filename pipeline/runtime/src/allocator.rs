//! The allocator of all binaries: threads make rows that others free, which the system's own is slow at.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
