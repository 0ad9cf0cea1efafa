//! Store calls on threads that may block.

use std::{collections::VecDeque, future, panic};

use n0_future::task::AbortOnDropHandle;

/// Runs a blocking call on tokio's blocking threads and waits for it.
///
/// A panic in the call goes on in the caller. If the runtime is going away this never resolves:
/// neither will anything else.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(answer) => return answer,
        Err(error) => {
            if let Ok(payload) = error.try_into_panic() {
                panic::resume_unwind(payload);
            }
        }
    }
    // Cancelled.
    future::pending().await
}

/// Questions asked of the store, answered in their order.
///
/// They run at once; a session asks few at a time.
#[derive(Debug)]
pub(crate) struct Queries<A>(VecDeque<AbortOnDropHandle<A>>);

/// A query panicked: a bug here or in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

impl<A: Send + 'static> Queries<A> {
    pub(crate) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Asks on a thread that may block.
    pub(crate) fn ask(&mut self, query: impl FnOnce() -> A + Send + 'static) {
        let asked = tokio::task::spawn_blocking(query);
        self.0.push_back(AbortOnDropHandle::new(asked));
    }

    /// Asks something that waits for more than the store.
    pub(crate) fn ask_async(&mut self, query: impl Future<Output = A> + Send + 'static) {
        let asked = tokio::spawn(query);
        self.0.push_back(AbortOnDropHandle::new(asked));
    }

    /// The oldest question's answer; waits for ever if there is none. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<A, Panicked> {
        let Some(oldest) = self.0.front_mut() else {
            return future::pending().await;
        };
        let answer = oldest.await;
        self.0.pop_front();
        answer.map_err(|_| Panicked)
    }
}
