//! Reading a bundle's archive, entry by entry, under limits.
//!
//! Everybody who looks into a bundle does it here: the fleet when it is stored, the engine that fills
//! a container, the agent that unpacks it. An archive is somebody else's: it may be a bomb, name the
//! same path twice, or hold links that lead out. Nothing of it is held in memory but names, which are
//! counted too; long names are read here because the tar crate would read any length of them.
//!
//! What an entry may be: a folder, a file, a symbolic link, a hard link to a file before it. Nothing
//! lies below a link. Modes lose their setuid, setgid and sticky bits.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use tar::EntryType;

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Headers, of whatever kind.
    pub(crate) headers: usize,
    /// Bytes of one path or link.
    pub(crate) path: usize,
    /// Folders in folders.
    pub(crate) depth: usize,
    /// Bytes of all paths and links together.
    pub(crate) names: usize,
    /// Bytes of one extension header.
    pub(crate) extension: u64,
    /// Bytes, unpacked.
    pub(crate) unpacked: u64,
    /// How many times larger it may be unpacked, once it is larger than `free`.
    pub(crate) ratio: u64,
    pub(crate) free: u64,
    /// Steps that all symbolic links together may need to be followed.
    pub(crate) steps: usize,
}

/// The limits of every bundle.
pub(crate) const LIMITS: Limits = Limits {
    headers: 100_000,
    path: 1_024,
    depth: 64,
    names: 32 << 20,
    extension: 64 << 10,
    unpacked: 4 << 30,
    ratio: 200,
    free: 256 << 20,
    steps: 2_000_000,
};

/// Where symbolic links may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Only to what is in the archive, however they are chained.
    Inside,
    /// Anywhere: the archive fills a container, whose own files they name.
    Anywhere,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File {
        size: u64,
    },
    Symlink(PathBuf),
    /// To a file that came before.
    Hardlink(PathBuf),
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Relative, without `.` or `..`.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    /// Permission bits only.
    pub(crate) mode: u32,
    /// Owner, group, time; nothing else of it is believed.
    pub(crate) header: tar::Header,
}

/// Why an archive isn't read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It is at fault.
    #[error("{0}")]
    Bad(String),
    /// It isn't one, or ends too early.
    #[error("it can't be read as a tar.gz: {0}")]
    Unreadable(io::Error),
    /// Who looks at it has a problem of its own.
    #[error(transparent)]
    Visitor(#[from] io::Error),
}

fn bad(text: impl Into<String>) -> ArchiveError {
    ArchiveError::Bad(text.into())
}

/// Gives each entry to `visit`, with its content, in the order of the archive.
pub(crate) fn read(
    packed: File,
    links: Links,
    limits: Limits,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let size = packed.metadata()?.len();
    let most = limits.unpacked.min(limits.free.max(size.saturating_mul(limits.ratio)));
    let unpacked = Bounded { inner: GzDecoder::new(packed), left: most, most };
    let mut archive = tar::Archive::new(unpacked);
    let entries = archive.entries().map_err(ArchiveError::Unreadable)?.raw(true);
    let mut tree = Tree::new(limits);
    let mut next = Next::default();
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        if count >= limits.headers {
            return Err(bad(format!("it has more than {} entries", limits.headers)));
        }
        if entry.size() > most {
            return Err(bad(format!("it unpacks to more than {most} bytes")));
        }
        if next.extension(&mut entry, limits)? {
            continue;
        }
        let entry_type = entry.header().entry_type();
        let described = next.take(&entry, limits)?;
        let shown = described.path.display().to_string();
        let kind = match entry_type {
            EntryType::Directory => Kind::Folder,
            EntryType::Regular | EntryType::Continuous if described.ends_with_slash => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File { size: entry.size() },
            EntryType::Symlink => Kind::Symlink(described.link),
            EntryType::Link => Kind::Hardlink(
                relative(&described.link)
                    .ok_or_else(|| bad(format!("the hard link {shown} leaves it")))?,
            ),
            other => {
                return Err(bad(format!("{shown} is a {other:?}: files, folders and links only")));
            }
        };
        let path = relative(&described.path).ok_or_else(|| bad(format!("{shown} leaves it")))?;
        if path.as_os_str().is_empty() {
            if kind == Kind::Folder {
                continue;
            }
            return Err(bad(format!("{shown:?} names no file")));
        }
        tree.add(&path, &kind)?;
        let mode = entry.header().mode().map_err(ArchiveError::Unreadable)? & 0o777;
        let header = entry.header().clone();
        let seen = Entry { path, kind, mode, header };
        let left = if let Kind::File { size } = seen.kind { size } else { 0 };
        visit(&seen, &mut Whole { inner: &mut entry, left })?;
    }
    if next != Next::default() {
        return Err(bad("it ends with a name that belongs to nothing"));
    }
    if links == Links::Inside { tree.links_stay_inside() } else { Ok(()) }
}

/// The path without `.`; none if it is absolute or has `..`.
pub(crate) fn relative(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// What the extension headers before an entry say of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Next {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// An entry's names, whoever said them.
struct Described {
    path: PathBuf,
    ends_with_slash: bool,
    link: PathBuf,
}

impl Next {
    /// Reads an extension header; false if it is an entry of its own.
    fn extension<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        limits: Limits,
    ) -> Result<bool, ArchiveError> {
        let kind = entry.header().entry_type();
        let limit = match kind {
            EntryType::GNULongName | EntryType::GNULongLink => limits.path as u64 + 1,
            EntryType::XHeader | EntryType::XGlobalHeader => limits.extension,
            _ => return Ok(false),
        };
        if entry.size() > limit {
            return Err(bad(format!(
                "it has a name or extension header of {} bytes: at most {limit}",
                entry.size()
            )));
        }
        let size = entry.size();
        let mut bytes = Vec::new();
        Whole { inner: entry, left: size }
            .read_to_end(&mut bytes)
            .map_err(ArchiveError::Unreadable)?;
        let without_end = |mut bytes: Vec<u8>| {
            if bytes.last() == Some(&0) {
                bytes.pop();
            }
            bytes
        };
        match kind {
            EntryType::GNULongName => put(&mut self.path, without_end(bytes))?,
            EntryType::GNULongLink => put(&mut self.link, without_end(bytes))?,
            EntryType::XHeader => self.pax(&bytes)?,
            // Says something of every entry: that would be a second name for each.
            _ => {
                let mut global = Self::default();
                global.pax(&bytes)?;
                if global != Self::default() {
                    return Err(bad("a global header renames its entries"));
                }
            }
        }
        Ok(true)
    }

    fn pax(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        for pair in tar::PaxExtensions::new(bytes) {
            let pair = pair.map_err(ArchiveError::Unreadable)?;
            let key = pair.key_bytes();
            if key.starts_with(b"GNU.sparse.") {
                return Err(bad("it has a sparse file: pack it without --sparse"));
            }
            match key {
                b"path" => put(&mut self.path, pair.value_bytes().to_vec())?,
                b"linkpath" => put(&mut self.link, pair.value_bytes().to_vec())?,
                b"size" => {
                    let size = pair.value().ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| bad("an entry's size isn't a number"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The names of the entry that these headers were for.
    fn take<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        limits: Limits,
    ) -> Result<Described, ArchiveError> {
        let said = std::mem::take(self);
        if said.size.is_some_and(|size| size != entry.size()) {
            return Err(bad("an entry says two sizes"));
        }
        let header = entry.header();
        let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = said
            .link
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        for name in [&path, &link] {
            if name.len() > limits.path {
                let text =
                    format!("it has a name of {} bytes: at most {}", name.len(), limits.path);
                return Err(bad(text));
            }
            if name.contains(&0) {
                return Err(bad("it has a name with a zero byte"));
            }
        }
        let is_link = matches!(header.entry_type(), EntryType::Symlink | EntryType::Link);
        if is_link && link.is_empty() {
            return Err(bad("it has a link to nothing"));
        }
        Ok(Described {
            ends_with_slash: path.ends_with(b"/"),
            path: PathBuf::from(OsString::from_vec(path)),
            link: PathBuf::from(OsString::from_vec(link)),
        })
    }
}

fn put(name: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), ArchiveError> {
    if name.replace(value).is_some() {
        return Err(bad("an entry is named twice"));
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File,
    Link(PathBuf),
}

/// The names that an archive has so far.
struct Tree {
    limits: Limits,
    nodes: HashMap<PathBuf, Node>,
    names: usize,
}

impl Tree {
    fn new(limits: Limits) -> Self {
        Self { limits, nodes: HashMap::new(), names: 0 }
    }

    fn add(&mut self, path: &Path, kind: &Kind) -> Result<(), ArchiveError> {
        let shown = || path.display();
        let depth = path.components().count();
        if depth > self.limits.depth {
            return Err(bad(format!("{} lies {depth} folders deep", shown())));
        }
        let mut parents: Vec<&Path> =
            path.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            match self.nodes.get(parent) {
                Some(Node::Folder) => {}
                Some(_) => {
                    let text = format!(
                        "{} lies below {}, which isn't a folder",
                        shown(),
                        parent.display()
                    );
                    return Err(bad(text));
                }
                None => self.insert(parent, Node::Folder)?,
            }
        }
        match (self.nodes.get(path), kind) {
            (Some(Node::Folder), Kind::Folder) => return Ok(()),
            (Some(_), _) => return Err(bad(format!("{} is in it twice", shown()))),
            (None, _) => {}
        }
        let node = match kind {
            Kind::Folder => Node::Folder,
            Kind::File { .. } => Node::File,
            Kind::Symlink(to) => Node::Link(to.clone()),
            Kind::Hardlink(to) if self.nodes.get(to) == Some(&Node::File) => Node::File,
            Kind::Hardlink(to) => {
                let text = format!(
                    "the hard link {} names {}, which is no file before it",
                    shown(),
                    to.display()
                );
                return Err(bad(text));
            }
        };
        self.insert(path, node)
    }

    fn insert(&mut self, path: &Path, node: Node) -> Result<(), ArchiveError> {
        let link = if let Node::Link(to) = &node { to.as_os_str().len() } else { 0 };
        self.names += path.as_os_str().len() + link;
        if self.names > self.limits.names {
            return Err(bad(format!("its names have more than {} bytes", self.limits.names)));
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Follows every symbolic link as the kernel would, through other links too.
    fn links_stay_inside(&self) -> Result<(), ArchiveError> {
        let mut steps = 0;
        for (path, node) in &self.nodes {
            let Node::Link(to) = node else { continue };
            let parts: Vec<OsString> = parts(path.parent().unwrap_or(Path::new("")));
            if !self.stays(parts, to, &mut steps)? {
                return Err(bad(format!(
                    "the link {} leads out of it, to {}",
                    path.display(),
                    to.display()
                )));
            }
        }
        Ok(())
    }

    fn stays(
        &self,
        mut here: Vec<OsString>,
        to: &Path,
        steps: &mut usize,
    ) -> Result<bool, ArchiveError> {
        /// As many links in one path as Linux follows.
        const HOPS: usize = 40;
        let mut hops = 0;
        let mut todo: VecDeque<PathBuf> = VecDeque::from([to.to_owned()]);
        while let Some(path) = todo.pop_front() {
            let mut rest = path.components();
            while let Some(part) = rest.next() {
                *steps += 1;
                if *steps > self.limits.steps {
                    return Err(bad("its links are too tangled to be followed"));
                }
                match part {
                    Component::CurDir => {}
                    Component::ParentDir => {
                        if here.pop().is_none() {
                            return Ok(false);
                        }
                    }
                    Component::Normal(name) => {
                        here.push(name.to_owned());
                        let at: PathBuf = here.iter().collect();
                        if let Some(Node::Link(to)) = self.nodes.get(&at) {
                            hops += 1;
                            if hops > HOPS {
                                return Ok(false);
                            }
                            here.pop();
                            todo.push_front(rest.as_path().to_owned());
                            todo.push_front(to.clone());
                            break;
                        }
                    }
                    Component::RootDir | Component::Prefix(_) => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

fn parts(path: &Path) -> Vec<OsString> {
    path.iter().map(OsStr::to_owned).collect()
}

/// Ends a stream that grows beyond its limit.
struct Bounded<R> {
    inner: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // Exactly the limit is fine.
            let mut one = [0];
            if self.inner.read(&mut one)? == 0 {
                return Ok(0);
            }
            let text = format!("it unpacks to more than {} bytes", self.most);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Exactly the bytes of one entry: an archive that is cut off is an error, not a shorter file.
struct Whole<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use tar::Header;

    use super::*;

    /// An archive, header by header, as nobody's tool would write it.
    pub(crate) struct Raw(tar::Builder<flate2::write::GzEncoder<tempfile::NamedTempFile>>);

    impl Raw {
        pub(crate) fn new() -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            let gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            Self(tar::Builder::new(gz))
        }

        pub(crate) fn put(mut self, path: &str, kind: EntryType, link: &str, body: &[u8]) -> Self {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o6755);
            header.set_size(body.len() as u64);
            header.set_cksum();
            self.0.append(&header, body).unwrap();
            self
        }

        pub(crate) fn file(self, path: &str, body: &str) -> Self {
            self.put(path, EntryType::Regular, "", body.as_bytes())
        }

        pub(crate) fn folder(self, path: &str) -> Self {
            self.put(path, EntryType::Directory, "", b"")
        }

        pub(crate) fn link(self, path: &str, to: &str) -> Self {
            self.put(path, EntryType::Symlink, to, b"")
        }

        pub(crate) fn hard(self, path: &str, to: &str) -> Self {
            self.put(path, EntryType::Link, to, b"")
        }

        pub(crate) fn pax(self, pairs: &[(&str, &str)]) -> Self {
            let mut body = Vec::new();
            for (key, value) in pairs {
                // The length counts itself.
                let rest = key.len() + value.len() + 3;
                let length =
                    (1..9).map(|digits| rest + digits).find(|l| l.to_string().len() + rest == *l);
                writeln!(body, "{} {key}={value}", length.unwrap()).unwrap();
            }
            self.put("pax", EntryType::XHeader, "", &body)
        }

        pub(crate) fn done(self) -> tempfile::NamedTempFile {
            self.0.into_inner().unwrap().finish().unwrap()
        }
    }

    fn read_all(raw: Raw, links: Links) -> Result<Vec<(String, Kind)>, String> {
        read_within(raw, links, LIMITS)
    }

    fn read_within(raw: Raw, links: Links, limits: Limits) -> Result<Vec<(String, Kind)>, String> {
        let file = raw.done();
        let mut found = Vec::new();
        let mut look = |entry: &Entry, content: &mut dyn Read| {
            io::copy(content, &mut io::sink())?;
            assert_eq!(entry.mode & 0o7000, 0, "no special bits");
            found.push((entry.path.display().to_string(), entry.kind.clone()));
            Ok(())
        };
        read(file.reopen().unwrap(), links, limits, &mut look)
            .map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn an_honest_archive_is_read_with_its_links() {
        let long = "d/".repeat(60) + &"n".repeat(300);
        let raw = Raw::new()
            .folder("./")
            .folder("./bin/")
            .file("bin/shop", "#!/bin/sh")
            .hard("hard", "./bin/shop")
            .link("soft", "bin/shop")
            .link("bin/up", "../soft")
            .pax(&[("path", &long), ("mtime", "1.5")])
            .file("ignored", "x");
        let found = read_all(raw, Links::Inside).unwrap();
        assert_eq!(found[0], ("bin".into(), Kind::Folder));
        assert!(found.contains(&("hard".into(), Kind::Hardlink("bin/shop".into()))));
        assert!(found.contains(&("bin/up".into(), Kind::Symlink("../soft".into()))));
        assert!(found.contains(&(long, Kind::File { size: 1 })));
    }

    #[test]
    fn a_chain_of_links_is_followed_to_where_it_leads() {
        let inside = [
            Raw::new().folder("a/b/").link("a/b/c", "../.."),
            Raw::new()
                .file("a/f", "")
                .link("x", "a/../a/./f")
                .link("y", "x")
                .link("z", "nothing/at/all"),
            Raw::new().folder("d/e/").link("l", "d/e").link("m", "l/../../d"),
        ];
        for raw in inside {
            read_all(raw, Links::Inside).unwrap();
        }
        let out = [
            Raw::new().link("x", "/etc/passwd"),
            Raw::new().link("x", ".."),
            Raw::new().link("a/x", "../../etc"),
            // Each looks fine by its letters alone.
            Raw::new().link("d", ".").link("x", "d/d/../../etc"),
            Raw::new().folder("a/b/").link("a/b/c", "../..").link("x", "a/b/c/../etc"),
            Raw::new().folder("a/b/").link("l", "a/b").link("k", "l/../..").link("x", "k/../etc"),
            Raw::new().link("x", "y").link("y", "x"),
        ];
        for (i, raw) in out.into_iter().enumerate() {
            let refused = read_all(raw, Links::Inside).unwrap_err();
            assert!(refused.contains("leads out"), "{i}: {refused}");
        }
        // A container's files are its own.
        read_all(Raw::new().link("python", "/usr/bin/python3"), Links::Anywhere).unwrap();
    }

    #[test]
    fn what_could_reach_out_or_mislead_is_refused() {
        use EntryType::{Block, Char, Fifo, GNUSparse};
        let cases = [
            ("below", Raw::new().folder("a/b/").link("a/b/c", "../..").link("a/b/c/x", "../../..")),
            ("below", Raw::new().link("a", "b").file("a/passwd", "x")),
            ("below", Raw::new().file("a", "").file("a/b", "")),
            ("twice", Raw::new().file("a", "").file("./a", "")),
            ("twice", Raw::new().file("a/b", "").link("a", "/etc")),
            ("twice", Raw::new().link("a", "b").folder("a/")),
            ("leaves", Raw::new().file("../x", "")),
            ("leaves", Raw::new().file("/etc/passwd", "")),
            ("leaves", Raw::new().file("a/../../x", "")),
            ("leaves", Raw::new().hard("x", "../../etc/passwd")),
            ("leaves", Raw::new().hard("x", "/etc/passwd")),
            ("no file before", Raw::new().hard("x", "later").file("later", "")),
            ("no file before", Raw::new().link("l", "f").hard("x", "l")),
            ("Char", Raw::new().put("dev", Char, "", b"")),
            ("Block", Raw::new().put("dev", Block, "", b"")),
            ("Fifo", Raw::new().put("p", Fifo, "", b"")),
            ("GNUSparse", Raw::new().put("s", GNUSparse, "", b"")),
            ("sparse", Raw::new().pax(&[("GNU.sparse.major", "1")]).file("s", "")),
            ("two sizes", Raw::new().pax(&[("size", "5")]).file("s", "123456789")),
            ("named twice", Raw::new().pax(&[("path", "a"), ("path", "b")]).file("s", "")),
            ("leaves", Raw::new().pax(&[("path", "../../x")]).file("s", "")),
            ("leads out", Raw::new().pax(&[("linkpath", "../../x")]).link("s", "fine")),
            ("global", {
                let raw = Raw::new();
                raw.put("g", EntryType::XGlobalHeader, "", b"13 path=../x\n").file("s", "")
            }),
            ("belongs to nothing", Raw::new().file("a", "").pax(&[("path", "b")])),
            ("folders deep", Raw::new().pax(&[("path", &"d/".repeat(100))]).file("s", "")),
            ("nothing", Raw::new().link("a", "")),
        ];
        for (why, raw) in cases {
            let refused = read_all(raw, Links::Inside).unwrap_err();
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }

    #[test]
    fn names_sizes_and_numbers_are_limited_before_they_are_held() {
        let long = vec![b'n'; 3 << 20];
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let refused =
                read_all(Raw::new().put("l", kind, "", &long).file("a", ""), Links::Inside);
            assert!(refused.unwrap_err().contains("header of"), "{kind:?}");
        }
        let limits =
            Limits { headers: 10, names: 200, unpacked: 50_000, free: 20_000, ratio: 10, ..LIMITS };
        let many = (0..11).fold(Raw::new(), |raw, i| raw.file(&format!("f{i}"), ""));
        assert!(read_within(many, Links::Inside, limits).unwrap_err().contains("entries"));
        let pax = (0..11).fold(Raw::new(), |raw, _| raw.pax(&[("mtime", "1")]));
        assert!(read_within(pax, Links::Inside, limits).unwrap_err().contains("entries"));
        let name = "n".repeat(90);
        let names = (0..3).fold(Raw::new(), |raw, i| raw.file(&format!("{name}{i}"), ""));
        assert!(read_within(names, Links::Inside, limits).unwrap_err().contains("names"));
        let zeros = Raw::new().put("z", EntryType::Regular, "", &vec![0; 40_000]);
        assert!(read_within(zeros, Links::Inside, limits).unwrap_err().contains("unpacks to more"));
        // A size that nobody could have.
        let mut header = Header::new_gnu();
        header.set_path("big").unwrap();
        header.set_size(u64::MAX / 2);
        header.set_cksum();
        let mut raw = Raw::new();
        raw.0.get_mut().write_all(header.as_bytes()).unwrap();
        assert!(read_all(raw, Links::Inside).unwrap_err().contains("unpacks to more"));
        let tangled = Limits { steps: 400, ..LIMITS };
        let chain = (0..30).fold(Raw::new().file("l0", ""), |raw, i| {
            raw.link(&format!("l{}", i + 1), &format!("l{i}"))
        });
        assert!(read_within(chain, Links::Inside, tangled).unwrap_err().contains("tangled"));
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_not_read_as_less() {
        let whole = Raw::new().file("a", &"x".repeat(10_000)).done();
        let bytes = std::fs::read(whole.path()).unwrap();
        for part in [&bytes[..bytes.len() / 2], b"not a gzip", b""] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), part).unwrap();
            let read = read(file.reopen().unwrap(), Links::Inside, LIMITS, &mut |_, content| {
                io::copy(content, &mut io::sink()).map(drop).map_err(ArchiveError::Unreadable)
            });
            assert!(matches!(read, Err(ArchiveError::Unreadable(_))), "{read:?}");
        }
    }
}
