//! What a flow runs: a guest's code, or a native flow of the platform.

use std::sync::{Arc, LazyLock};

use maxhost_sandbox::FlowDescriptor;

use crate::guests::placement::{CpuProfile, FlowDef};

/// The CorDapp that native flows belong to.
const PLATFORM: &str = "maxhost";
/// The protocol of notaries.
pub(crate) const NOTARISE: &str = "maxhost/notarise";
/// The protocol in which a notary is asked what it has decided.
pub(crate) const DECIDED: &str = "maxhost/decided";
/// The protocol in which a participant is asked to sign a change of notary.
pub(crate) const CHANGE_NOTARY: &str = "maxhost/change-notary";
/// The flow that settles what another has left in flight.
pub(crate) const SETTLE: &str = "maxhost/settle";

/// What a flow runs.
#[derive(Clone)]
pub(crate) enum FlowCode {
    /// A flow of a CorDapp.
    Guest(Arc<FlowDef>),
    /// A flow of the platform.
    Native(Arc<NativeFlow>),
}

/// A flow of the platform.
pub(crate) struct NativeFlow {
    pub kind: NativeKind,
    /// The flow's full name, `maxhost/…`.
    pub name: Arc<str>,
    /// Its name without that.
    flow: &'static str,
    version: u32,
    profile: CpuProfile,
}

/// The component hash in the start of a native flow.
pub(crate) const NO_COMPONENT: [u8; 32] = [0; 32];

/// What a native flow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NativeKind {
    /// Answers a request to a notary.
    Notarise,
    /// Says what a notary has decided.
    Decided,
    /// Settles what another flow has left in flight.
    Settle,
    /// Signs a change of notary that another party proposes.
    ChangeNotary,
}

fn native(kind: NativeKind, name: &'static str) -> Arc<NativeFlow> {
    let flow = name.rsplit('/').next().unwrap_or(name);
    Arc::new(NativeFlow { kind, name: name.into(), flow, version: 1, profile: CpuProfile::default() })
}

static NATIVE: LazyLock<[Arc<NativeFlow>; 4]> = LazyLock::new(|| {
    [
        native(NativeKind::Settle, SETTLE),
        native(NativeKind::Notarise, NOTARISE),
        native(NativeKind::Decided, DECIDED),
        native(NativeKind::ChangeNotary, CHANGE_NOTARY),
    ]
});

impl FlowCode {
    /// The native responder of a protocol that only a notary has: no CorDapp stands in its place.
    pub fn notarys_responder(protocol: &str) -> Option<FlowCode> {
        FlowCode::responder(protocol, |kind| matches!(kind, NativeKind::Notarise | NativeKind::Decided))
    }

    /// The native responder of a protocol that every identity has, unless one of its CorDapps has another.
    pub fn native_responder(protocol: &str) -> Option<FlowCode> {
        FlowCode::responder(protocol, |kind| kind == NativeKind::ChangeNotary)
    }

    fn responder(protocol: &str, is_wanted: impl Fn(NativeKind) -> bool) -> Option<FlowCode> {
        let found = NATIVE.iter().find(|native| is_wanted(native.kind) && *native.name == *protocol);
        found.cloned().map(FlowCode::Native)
    }

    /// The native flow of this name, without the platform's.
    pub fn native(flow: &str) -> Option<FlowCode> {
        NATIVE.iter().find(|native| native.flow == flow).cloned().map(FlowCode::Native)
    }

    /// The flow that settles what another has left in flight.
    pub fn settle() -> FlowCode {
        FlowCode::Native(NATIVE[0].clone())
    }

    /// The flow's full name, `cordapp/flow`.
    pub fn name(&self) -> &Arc<str> {
        match self {
            FlowCode::Guest(def) => &def.name,
            FlowCode::Native(native) => &native.name,
        }
    }

    pub fn profile(&self) -> &CpuProfile {
        match self {
            FlowCode::Guest(def) => &def.profile,
            FlowCode::Native(native) => &native.profile,
        }
    }

    /// The flow's name without its CorDapp's, and its version.
    pub fn flow(&self) -> (&str, u32) {
        match self {
            FlowCode::Guest(def) => (&def.descriptor.name, def.descriptor.version),
            FlowCode::Native(native) => (native.flow, native.version),
        }
    }

    /// Its CorDapp's name, version and hash.
    pub fn cordapp(&self) -> (&str, &str, [u8; 32]) {
        match self {
            FlowCode::Guest(def) => {
                let component = &def.component;
                (&component.descriptor.name, &component.descriptor.version, component.hash)
            }
            FlowCode::Native(_) => (PLATFORM, env!("CARGO_PKG_VERSION"), NO_COMPONENT),
        }
    }

    /// The flows of its CorDapp.
    pub fn flows(&self) -> &[FlowDescriptor] {
        match self {
            FlowCode::Guest(def) => &def.component.descriptor.flows,
            FlowCode::Native(_) => &[],
        }
    }
}
