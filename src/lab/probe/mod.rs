//! What tells whether the fabric carries packets: echo, a counted stream, a conversation over TCP, bulk transfer,
//! traffic without a pause, HTTP. All in-process, in a
//! namespace, without any external program.

mod flood;
mod http;
mod load;
mod ping;
mod stream;
mod talk;
mod tcp;

pub use http::http_get;
pub use load::{Load, Passed, Path};
pub use ping::{ping, ping_until, round_trips};
pub use stream::{Stream, StreamReport};
pub use talk::{Talk, TalkReport};
pub use tcp::tcp_gbps;
