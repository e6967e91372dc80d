//! The wire: messages and services generated from the files under `proto/`,
//! one module per area and version.

// Generated code is what the generator makes of it.
#![allow(clippy::all, unused_qualifications, rust_2018_idioms)]

pub mod json;

macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}

/// Any message, with its type.
pub use prost_types::Any;

pub mod common {
    pub mod v1 {
        package!("dapr.proto.common.v1");
    }
}
pub mod components {
    pub mod v1 {
        package!("dapr.proto.components.v1");
    }
}
/// The part of etcd's API that schedulers use and offer.
pub mod etcd {
    pub mod etcdserverpb {
        package!("etcdserverpb");
    }
    pub mod mvccpb {
        package!("mvccpb");
    }
}
pub mod internals {
    pub mod v1 {
        package!("dapr.proto.internals.v1");
    }
}
pub mod election {
    pub mod v1 {
        package!("outrider.placement.v1");
    }
}
pub mod operator {
    pub mod v1 {
        package!("dapr.proto.operator.v1");
    }
}
pub mod placement {
    pub mod v1 {
        package!("dapr.proto.placement.v1");
    }
}
pub mod reports {
    pub mod v1 {
        package!("outrider.operator.v1");
    }
}
pub mod runtime {
    pub mod v1 {
        package!("dapr.proto.runtime.v1");
    }
}
pub mod scheduler {
    pub mod v1 {
        package!("dapr.proto.scheduler.v1");
    }
}
/// What schedulers keep in their store.
pub mod stored {
    pub mod v1 {
        package!("outrider.scheduler.v1");
    }
}
pub mod sentry {
    pub mod v1 {
        package!("dapr.proto.sentry.v1");
    }
}
pub mod workflows {
    pub mod v1 {
        package!("dapr.proto.workflows.v1");
    }
}
