//! The requests of one connection that have no response yet. A second request with the same id is
//! refused, because nothing would distinguish their responses.

use std::{collections::HashSet, sync::Arc};

use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use tokio::sync::watch;

/// The ids of the requests that have no response yet. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingRequests(Arc<watch::Sender<HashSet<RequestId>>>);

impl PendingRequests {
    /// Adds a request; removes the one that a notification cancels, because it gets no response.
    ///
    /// # Errors
    /// The id, when a request with this id is already pending.
    pub(crate) fn track(&self, message: &ClientJsonRpcMessage) -> Result<(), RequestId> {
        match message {
            JsonRpcMessage::Request(request) => {
                if self
                    .0
                    .send_if_modified(|pending| pending.insert(request.id.clone()))
                {
                    Ok(())
                } else {
                    Err(request.id.clone())
                }
            }
            JsonRpcMessage::Notification(_) => {
                if let Some(id) = cancelled_id(message) {
                    self.remove(id);
                }
                Ok(())
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => Ok(()),
        }
    }

    /// Removes the request that `message` answers, if it answers one.
    pub(crate) fn remove_answered(&self, message: &ServerJsonRpcMessage) {
        if let Some(id) = answered_id(message) {
            self.remove(id);
        }
    }

    /// Removes a request that has its response, or gets none.
    pub(crate) fn remove(&self, id: &RequestId) {
        self.0.send_if_modified(|pending| pending.remove(id));
    }

    /// Removes all requests and gives their ids.
    pub(crate) fn take(&self) -> HashSet<RequestId> {
        self.0.send_replace(HashSet::new())
    }

    /// How many requests are pending.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until no request is pending.
    pub(crate) async fn wait_until_empty(&self) {
        self.wait_until_at_most(0).await;
    }

    /// Waits until at most `count` requests are pending.
    pub(crate) async fn wait_until_at_most(&self, count: usize) {
        // An error means that the sender is gone, but it is here.
        let _ = self
            .0
            .subscribe()
            .wait_for(|pending| pending.len() <= count)
            .await;
    }
}

/// The id of the request that `message` answers.
pub(crate) fn answered_id(message: &ServerJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
    }
}

/// The id of the request that `message` cancels.
pub(crate) fn cancelled_id(message: &ClientJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Notification(notification) => match &notification.notification {
            ClientNotification::CancelledNotification(cancelled) => {
                cancelled.params.request_id.as_ref()
            }
            _ => None,
        },
        JsonRpcMessage::Request(_) | JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => None,
    }
}
