//! Locking without poison: every critical section here is a few assignments that can't panic half
//! way, so a poisoned lock carries no news.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
