//! A value that others follow: like tokio's `watch`, but whoever waits is woken in the order of waiting.
//! tokio wakes in a random order, which would make a simulation unrepeatable.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::sync::lock;

/// The owner's side. Dropping it ends all waiting.
pub struct Watched<T>(Arc<Shared<T>>);

struct Shared<T> {
    current: Mutex<Current<T>>,
    changed: Notify,
}

struct Current<T> {
    value: T,
    version: u64,
    over: bool,
}

/// The owner is gone; the value will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it will not change any more")]
pub struct Over;

impl<T: Clone> Watched<T> {
    pub fn new(value: T) -> Self {
        let current = Current {
            value,
            version: 0,
            over: false,
        };
        Self(Arc::new(Shared {
            current: Mutex::new(current),
            changed: Notify::new(),
        }))
    }

    pub fn follow(&self) -> Follower<T> {
        Follower {
            shared: self.0.clone(),
            seen: lock(&self.0.current).version,
        }
    }

    pub fn set(&self, value: T) {
        {
            let mut current = lock(&self.0.current);
            current.value = value;
            current.version += 1;
        }
        self.0.changed.notify_waiters();
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        lock(&self.0.current).over = true;
        self.0.changed.notify_waiters();
    }
}

/// A follower's side.
pub struct Follower<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Follower<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            seen: self.seen,
        }
    }
}

impl<T: Clone> Follower<T> {
    pub fn get(&self) -> T {
        lock(&self.shared.current).value.clone()
    }

    /// Waits for a value that this follower has not seen.
    pub async fn changed(&mut self) -> Result<T, Over> {
        loop {
            // Made before the look, so that no change in between is missed.
            let changed = self.shared.changed.notified();
            {
                let current = lock(&self.shared.current);
                if current.version != self.seen {
                    self.seen = current.version;
                    return Ok(current.value.clone());
                }
                if current.over {
                    return Err(Over);
                }
            }
            changed.await;
        }
    }

    /// The first value, from the present one on, of which this holds.
    pub async fn wait_for(&mut self, holds: impl Fn(&T) -> bool) -> Result<T, Over> {
        let mut value = {
            let current = lock(&self.shared.current);
            self.seen = current.version;
            current.value.clone()
        };
        while !holds(&value) {
            value = self.changed().await?;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_sees_the_latest_value_and_the_end() {
        let watched = Watched::new(0);
        let (mut one, mut other) = (watched.follow(), watched.follow());
        watched.set(1);
        watched.set(2);
        assert_eq!(one.changed().await, Ok(2));
        assert_eq!(other.wait_for(|value| *value > 1).await, Ok(2));
        let waiting = tokio::spawn(async move { one.wait_for(|value| *value == 9).await });
        tokio::task::yield_now().await;
        watched.set(9);
        assert_eq!(waiting.await.unwrap(), Ok(9));
        drop(watched);
        assert_eq!(
            other.wait_for(|value| *value == 9).await,
            Ok(9),
            "the last value stays"
        );
        assert_eq!(other.changed().await, Err(Over));
    }
}
