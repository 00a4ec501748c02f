//! The allocator of all binaries: threads make rows that others write and free, which the system's own is slow at.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the crate has no name for; it stands before this one in mimalloc's list.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;

/// Keeps pages that are free: giving them back and asking for them again took a tenth of a run. What users set in
/// `MIMALLOC_PURGE_DELAY` counts.
pub(crate) fn keep_pages() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        #[allow(unsafe_code, reason = "sets a number in mimalloc's table of options")]
        // SAFETY: the option is one of mimalloc's list, and nothing else sets it.
        unsafe {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        }
    }
}

#[cfg(test)]
mod tests {
    /// In both lists of options that mimalloc has, a free page is given back after 10 or 1,000 milliseconds by default.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        #[allow(unsafe_code, reason = "reads a number of mimalloc's table of options")]
        let value = || unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        assert!(matches!(value(), 10 | 1000 | -1), "{}", value());
        super::keep_pages();
        assert_eq!(value(), -1);
    }
}
