//! VXLAN frames in user space, as pure functions over byte slices: no I/O, no clock, no allocation for a packet, and
//! no panic whatever the bytes.
//!
//! # A frame's walk
//!
//! Out: the TAP gives a virtio header and a frame, perhaps of 64 KiB, with its checksum left undone.
//!
//! ```text
//! virtio::Header::decode ─▶ path::way ─┬─▶ To(peer, layout) ─▶ Segments::new ─▶ next_chunk … ─▶ sendmsg(UDP_SEGMENT)
//!                                      │                       packet_len() > peer.mtu ─▶ answer::too_big ─▶ TAP
//!                                      └─▶ Ask ─▶ answer::neighbour ─▶ TAP
//! ```
//!
//! In: the socket gives datagrams, perhaps many behind each other with `UDP_GRO`, in one buffer.
//!
//! ```text
//! path::admit ─▶ (frame, layout) ─▶ Coalescer::push … after the batch: finish ─▶ units ─▶ writev(virtio, head, tail…)
//! ```
//!
//! # How to use it in batches
//!
//! - Buffers belong to the caller. Ranges say what to send, so nothing borrows from anything across a batch.
//! - [`segment::Segments::next_chunk`] writes headers into an arena: give it the unused rest of one arena for a whole
//!   batch, cut off [`segment::Chunk::arena_len`] after each chunk. One chunk is one `sendmsg`: two ranges a segment.
//!   [`segment::Segments::is_whole`] says that nothing but [`vxlan::Vxlan::header`] stands before the frame; a caller
//!   with eight free bytes before it may write it there, and needs no arena. [`group::Group`] says which of several
//!   such frames make one `sendmsg`.
//! - A [`coalesce::Coalescer`] looks at one batch in one buffer, and is cleared after it. Frames come out in the order
//!   in which they came in, flow by flow.
//! - Whatever is not carried is a [`Dropped`], to be counted by [`Dropped::index`].

pub mod answer;
mod bytes;
pub mod checksum;
pub mod coalesce;
mod dropped;
pub mod flow;
pub mod group;
pub mod parse;
pub mod path;
#[cfg(test)]
mod samples;
pub mod segment;
pub mod syn;
pub mod table;
pub mod undone;
pub mod virtio;
pub mod vxlan;

pub use dropped::Dropped;

#[cfg(test)]
mod tests;
