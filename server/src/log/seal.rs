//! The sealed form: frames of zstd of about 1 MiB, each a whole number of lines, and an index.
//!
//! The file is in zstd's seekable format: any `zstd -d` reads it whole. `<epoch>.idx` is the layout
//! as JSON.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{
    layout::{Block, Layout},
    read::{LogReader, damaged},
};

/// A frame ends at the first block border after so many bytes.
const FRAME: u64 = 1 << 20;
/// As fast as the disk, and logs shrink to a tenth.
const LEVEL: i32 = 3;

#[derive(serde::Serialize, serde::Deserialize)]
struct Index {
    version: u32,
    length: u64,
    layout: Layout,
    /// CRC-32 of each frame's bytes; a log that was sealed by version 1 has none.
    #[serde(default)]
    sums: Vec<u32>,
}

/// Writes both files beside the live one, and reads them back before it returns. Answers the digest
/// of the index, by which the whole is known.
pub(super) fn write(reader: &LogReader, folder: &Path, name: &str) -> io::Result<String> {
    let closed = reader.clone().closed();
    let blocks = &closed.layout().blocks;
    let (temporary, sealed) =
        (folder.join(format!("{name}.zst.new")), folder.join(format!("{name}.zst")));
    let mut file = File::create(&temporary)?;
    let mut frames: Vec<Block> = Vec::new();
    let mut table: Vec<(u32, u32)> = Vec::new();
    let mut sums = Vec::new();
    let (mut at, mut index) = (0_u64, 0);
    while index < blocks.len() {
        let first = blocks[index];
        let mut bytes = Vec::new();
        while index < blocks.len() && (bytes.len() as u64) < FRAME {
            bytes.extend(closed.block(index)?);
            index += 1;
        }
        sums.push(crc32fast::hash(&bytes));
        let frame = zstd::bulk::compress(&bytes, LEVEL)?;
        file.write_all(&frame)?;
        frames.push(Block { at, ..first });
        table.push((size(frame.len())?, size(bytes.len())?));
        at += frame.len() as u64;
    }
    file.write_all(&seek_table(&table)?)?;
    file.sync_all()?;
    let layout = Layout { blocks: frames, ..(**reader.with_unfinished_line()).clone() };
    let index = Index { version: 2, length: layout.bytes, layout, sums };
    check(&temporary, &index)?;
    let text = serde_json::to_vec(&index)?;
    let index_temporary = folder.join(format!("{name}.idx.new"));
    let mut file = File::create(&index_temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    // The index first: where there is a sealed log, there is its index.
    fs::rename(index_temporary, folder.join(format!("{name}.idx")))?;
    fs::rename(temporary, sealed)?;
    sync_folder(folder)?;
    Ok(digest(&text))
}

fn digest(index: &[u8]) -> String {
    hex::encode(Sha256::digest(index))
}

/// Reads all of it back: what comes out must be what went in.
fn check(path: &Path, index: &Index) -> io::Result<()> {
    let reader = LogReader::sealed(File::open(path)?, index.layout.clone(), index.sums.clone(), "");
    for block in 0..index.layout.blocks.len() {
        reader.block(block)?;
    }
    Ok(())
}

/// The sealed log, if there is one.
///
/// # Errors
/// `InvalidData` when its files aren't those of a log.
pub(super) fn open(folder: &Path, name: &str) -> io::Result<Option<LogReader>> {
    let file = match File::open(folder.join(format!("{name}.zst"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let text = match fs::read(folder.join(format!("{name}.idx"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Between the two renames of `write` there is an index and no log, never this; but both
            // go together when a log is removed.
            return match folder.join(format!("{name}.zst")).try_exists()? {
                true => Err(damaged("its index is gone")),
                false => Ok(None),
            };
        }
        other => other?,
    };
    let index: Index = serde_json::from_slice(&text).map_err(damaged)?;
    let sums = index.sums.len();
    if !index.layout.is_sound()
        || index.length != index.layout.bytes
        || (index.version >= 2 && sums != index.layout.blocks.len())
    {
        return Err(damaged("its index makes no sense"));
    }
    Ok(Some(LogReader::sealed(file, index.layout, index.sums, &digest(&text))))
}

/// zstd's seek table: a frame that decoders skip.
fn seek_table(frames: &[(u32, u32)]) -> io::Result<Vec<u8>> {
    let mut table = Vec::with_capacity(17 + frames.len() * 8);
    table.extend(0x184D_2A5E_u32.to_le_bytes());
    table.extend(size(frames.len() * 8 + 9)?.to_le_bytes());
    for (compressed, plain) in frames {
        table.extend(compressed.to_le_bytes());
        table.extend(plain.to_le_bytes());
    }
    table.extend(size(frames.len())?.to_le_bytes());
    table.push(0);
    table.extend(0x8F92_EAB1_u32.to_le_bytes());
    Ok(table)
}

fn size(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
