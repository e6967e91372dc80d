mod bounds;
mod bytes;
mod external;
mod grpc;
mod http;
mod identity;
mod stream;
