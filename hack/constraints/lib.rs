//! Nothing of its own: the functions of llguidance.h, in a static library.
pub use llguidance::ffi::*;
