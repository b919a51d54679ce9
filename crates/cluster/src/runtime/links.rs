//! The control plane's door to the transport.

use crate::control::{ClusterId, LinkError, Links, Pending};
use crate::transport::{CallError, Channel, Identity, Transport};
use bytes::Bytes;
use kvorum_sync::{Lane, StoreId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;

/// The control plane's view of the transport.
pub(crate) struct ControlLinks {
    transport: Transport,
    /// What this node says of itself.
    identity: Mutex<Identity>,
}

impl ControlLinks {
    pub(crate) fn new(transport: Transport, identity: Identity) -> ControlLinks {
        ControlLinks { transport, identity: Mutex::new(identity) }
    }
}

impl Links for ControlLinks {
    fn send(&self, to: StoreId, body: Bytes) {
        // A lost heartbeat is followed by the next one.
        let _ = self.transport.send(to, Lane::Control, Channel::Control, body);
    }

    fn call(&self, to: StoreId, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let transport = self.transport.clone();
        Box::pin(async move {
            transport.call(to, Lane::Control, Channel::Control, body, deadline).await.map_err(failed)
        })
    }

    fn ask(&self, address: &str, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let (transport, address) = (self.transport.clone(), address.to_owned());
        Box::pin(async move {
            let answer = transport.ask(&address, Channel::Control, body, deadline).await;
            answer.map(|(_, answer)| answer).map_err(failed)
        })
    }

    fn set_peers(&self, peers: &[(StoreId, String)]) {
        self.transport.set_peers(peers);
    }

    fn set_left(&self, stores: BTreeSet<StoreId>) {
        self.transport.set_left(stores);
    }

    fn set_cluster(&self, cluster: ClusterId, map_version: u64) {
        let mut identity = self.identity.lock();
        let now = Identity { cluster: Some(cluster.0), empty: false, map_version, ..identity.clone() };
        if *identity != now {
            *identity = now.clone();
            self.transport.set_identity(now);
        }
    }
}

fn failed(error: CallError) -> LinkError {
    match error {
        CallError::NotSent(why) => LinkError::NotSent(why),
        CallError::Lost(why) => LinkError::Lost(why),
        CallError::Refused(why) => LinkError::Refused(why),
    }
}
