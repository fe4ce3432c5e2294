//! What tells whether the fabric carries packets: echo, a counted stream, bulk transfer, HTTP. All in-process, in a
//! namespace, without any external program.

mod http;
mod ping;
mod stream;
mod tcp;

pub use http::http_get;
pub use ping::{ping, ping_until};
pub use stream::{Stream, StreamReport};
pub use tcp::tcp_gbps;
