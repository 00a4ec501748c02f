//! The allocator of all binaries: threads make rows that others free, which the system's own is slow at.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Sets options of jemalloc. Belongs into a binary's main file, once: it takes them from a symbol.
#[macro_export]
macro_rules! malloc_conf {
    ($options:literal) => {
        #[allow(unsafe_code, reason = "no other symbol of this name is in a binary")]
        #[unsafe(export_name = "_rjem_malloc_conf")]
        #[used]
        static MALLOC_CONF: &u8 = &concat!($options, "\0").as_bytes()[0];
    };
}
