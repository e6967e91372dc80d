pub mod authority;
pub mod grpc;
pub mod http;
