//! The system's randomness and clock, interposed for this program alone.
//!
//! The linker binds every call of `getrandom` and `clock_gettime`, whichever library makes it, to
//! these two. On a thread that runs a simulation they answer from its seed and its clock, see
//! `live::machine`; on all others they ask the kernel. Processor time is the kernel's everywhere.
//!
//! The only unsafe code of this crate.
#![allow(unsafe_code, reason = "symbols of the C library have its signatures")]

use std::ffi::{c_int, c_long, c_uint, c_void};

use simnet::live::machine;

/// Makes the program keep both symbols; called once at its start.
pub fn install() {
    let _kept: [*const (); 2] = [getrandom as *const (), clock_gettime as *const ()];
    std::hint::black_box(_kept);
}

/// As the C library's.
///
/// # Safety
///
/// `buffer` must be writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !buffer.is_null() && length > 0 {
        // SAFETY: the caller promises that many writable bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        if machine::fill(bytes) {
            return isize::try_from(length).unwrap_or(isize::MAX);
        }
    }
    // SAFETY: the arguments are the caller's, for the call that was asked for.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
    isize::try_from(got).unwrap_or(-1)
}

/// As the C library's.
///
/// # Safety
///
/// `time` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut libc::timespec) -> c_int {
    let is_shown = matches!(
        clock,
        libc::CLOCK_REALTIME
            | libc::CLOCK_REALTIME_COARSE
            | libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_BOOTTIME
    );
    if is_shown
        && !time.is_null()
        && let Some(now) = machine::now()
    {
        let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX);
        let shown = libc::timespec { tv_sec: seconds, tv_nsec: c_long::from(now.subsec_nanos()) };
        // SAFETY: the caller promises a place for the answer.
        unsafe { time.write(shown) };
        return 0;
    }
    // SAFETY: the arguments are the caller's, for the call that was asked for.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    c_int::try_from(result).unwrap_or(-1)
}
