//! Parts made into an archive. Nothing gets into it past the redactor.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::redact::{Redactor, Removed};
use super::{About, Part, manifest};

/// Readable by its owner only, unpacked too.
const MODE: u32 = 0o600;

/// An archive, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Gzip of tar: a folder of the bundle's name.
    pub bytes: Vec<u8>,
    /// What is in it, but for the manifest, in its order.
    pub parts: Vec<Part>,
    /// What is not.
    pub removed: Removed,
}

/// Removes every secret from the parts, and makes an archive of them and their manifest.
///
/// # Errors
/// A part has a name that tar cannot have.
pub fn pack(about: &About, parts: Vec<Part>, redactor: &Redactor) -> io::Result<Packed> {
    let mut removed = Removed::new();
    let parts: Vec<Part> = parts.into_iter().map(|part| clean(part, redactor, &mut removed)).collect();
    let manifest = manifest::manifest(about, &parts, &removed);
    let manifest = redactor.clean(manifest.as_bytes()).bytes;
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |name: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(about.made.as_second().try_into().unwrap_or_default());
        archive.append_data(&mut header, format!("{}/{name}", about.name()), content)
    };
    add(manifest::NAME, &manifest)?;
    for part in &parts {
        match &part.content {
            Ok(bytes) => add(&part.name, bytes)?,
            Err(why) => add(&part.name, format!("could not be had: {why}\n").as_bytes())?,
        }
    }
    let bytes = archive.into_inner()?.finish()?;
    Ok(Packed { bytes, parts, removed })
}

fn clean(part: Part, redactor: &Redactor, removed: &mut Removed) -> Part {
    let mut clean = |bytes: &[u8]| {
        let cleaned = redactor.clean(bytes);
        cleaned.removed.iter().for_each(|(kind, count)| *removed.entry(kind).or_default() += count);
        cleaned.bytes
    };
    let mut text = |text: &str| String::from_utf8_lossy(&clean(text.as_bytes())).into_owned();
    let (name, source) = (text(&part.name), text(&part.source));
    let content = match part.content {
        Ok(bytes) => Ok(clean(&bytes)),
        Err(why) => Err(text(&why)),
    };
    Part { name, source, content }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::super::redact::{Rules, Secrets};
    use super::*;

    #[test]
    fn an_archive_has_every_part_and_no_secret_in_name_content_or_reason() {
        let mut secrets = Secrets::default();
        secrets.add("passwords", "hunter2");
        let redactor = Redactor::new(&secrets, Rules::new().unwrap()).unwrap();
        let made = jiff::Timestamp::from_second(1_764_000_000).unwrap();
        let about = About { host: "n1".to_owned(), made, version: "0" };
        let parts = vec![
            Part::new("files/a-hunter2", "cat hunter2", Ok::<_, &str>("x hunter2 y")),
            Part::new("kernel/b", "b", Err::<&str, _>("hunter2: no such user")),
        ];
        let packed = pack(&about, parts, &redactor).unwrap();
        assert_eq!(packed.removed, Removed::from([("passwords", 4)]));
        let mut archive = tar::Archive::new(GzDecoder::new(packed.bytes.as_slice()));
        let files: Vec<(String, u32, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let (name, mode) =
                    (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (name, mode, text)
            })
            .collect();
        let folder = about.name();
        let names: Vec<&str> = files.iter().map(|(name, ..)| &name[folder.len()..]).collect();
        assert_eq!(names, ["/MANIFEST.txt", "/files/a-***", "/kernel/b"]);
        assert_eq!(
            (files[1].2.as_str(), files[2].2.as_str()),
            ("x *** y", "could not be had: ***: no such user\n")
        );
        assert!(files[0].2.contains("4 passwords"), "{}", files[0].2);
        assert!(files.iter().all(|(_, mode, text)| *mode == 0o600 && !text.contains("hunter2")));
    }
}
