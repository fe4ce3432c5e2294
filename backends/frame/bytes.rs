//! Big-endian numbers in byte slices. Reading past the end gives `None`, writing past the end does nothing.

/// The two bytes at `at`.
#[inline]
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The four bytes at `at`.
#[inline]
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// The `N` bytes at `at`.
#[inline]
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Overwrites the bytes at `at`.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<N>()) {
        *place = value;
    }
}

/// Overwrites two bytes at `at`.
#[inline]
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_be_bytes());
}

/// Whether both slices have the same bytes in `range`, which both contain.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8], range: std::ops::Range<usize>) -> bool {
    matches!((a.get(range.clone()), b.get(range)), (Some(a), Some(b)) if a == b)
}
