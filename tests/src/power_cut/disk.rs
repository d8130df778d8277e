//! The disk after a power cut: which of the recorded changes are there.
//!
//! What is assumed, and it is little:
//! - `fsync` and `fdatasync` of a file that returned make every earlier write to it, and its
//!   length, durable. `sync_file_range`, closing and renaming make nothing durable.
//! - Of the writes that are not durable any subset may be there, in any order, each of them in
//!   any subset of its 512-byte sectors. A sector is old or new, never mixed.
//! - Entries of directories follow one of two models. [`Model::Strict`] is POSIX to the letter:
//!   an entry is durable when its directory was synced, else it may be there or not, each on its
//!   own; only a rename is one step. [`Model::Journal`] is what ext4 and XFS do: changes to
//!   directories keep their order, and a sync of a file or directory makes durable all up to the
//!   last one that names it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path};
use std::sync::Arc;

use super::workload::Numbers;

/// A file or directory, by number.
pub type Node = usize;

/// The directory everything is below.
pub const ROOT: Node = 0;

/// One recorded step.
#[derive(Debug, Clone)]
pub enum Event {
    /// Entries of directories changed.
    Namespace(NsOp),
    /// Bytes were written.
    Write {
        /// The file.
        node: Node,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A file was cut or extended to a length.
    SetLen {
        /// The file.
        node: Node,
        /// Its length in bytes.
        len: u64,
    },
    /// A file was made at least as long as this.
    Extend {
        /// The file.
        node: Node,
        /// Its least length in bytes.
        len: u64,
    },
    /// A sync was entered.
    SyncBegin {
        /// The sync, by number.
        sync: u64,
        /// The file or directory.
        node: Node,
    },
    /// A sync returned.
    SyncEnd {
        /// The sync, by number.
        sync: u64,
    },
    /// The workload began to commit a batch.
    Begin(u64),
    /// The workload's commit of a batch returned.
    Ack(u64),
}

/// Entries that change in one step: directory, name, and the new node or none.
#[derive(Debug, Clone)]
pub struct NsOp {
    /// The changes.
    pub changes: Vec<(Node, OsString, Option<Node>)>,
    /// The node that is a new directory, if one is.
    pub new_dir: Option<Node>,
}

impl NsOp {
    fn names(&self, node: Node) -> bool {
        self.changes.iter().any(|(dir, _, child)| *dir == node || *child == Some(node))
    }
}

/// How changes of directories survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// POSIX to the letter.
    Strict,
    /// In order, as a journaling file system does.
    Journal,
}

/// Which of the changes that are not durable are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None.
    Nothing,
    /// All of them, as after `kill -9`.
    All,
    /// Each with even chances.
    Some,
    /// Each sector of each with even chances.
    Sectors,
    /// Nearly all sectors: what is lost is a hole somewhere.
    MostSectors,
    /// The later half.
    Latest,
}

impl Survivors {
    /// All kinds.
    pub const ALL: [Survivors; 6] = [
        Survivors::Nothing,
        Survivors::All,
        Survivors::Some,
        Survivors::Sectors,
        Survivors::MostSectors,
        Survivors::Latest,
    ];

    fn keeps(self, numbers: &mut Numbers, index: usize, of: usize) -> bool {
        match self {
            Survivors::Nothing => false,
            Survivors::All => true,
            Survivors::Some | Survivors::Sectors => numbers.one_in(2),
            Survivors::MostSectors => !numbers.one_in(10),
            Survivors::Latest => index >= of / 2,
        }
    }
}

/// What a file holds: pages that share memory between images; absent pages are zeros.
#[derive(Debug, Clone, Default)]
pub struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

const PAGE: usize = 4096;
const SECTOR: u64 = 512;

impl Content {
    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        self.len = self.len.max(offset + data.len() as u64);
        while !data.is_empty() {
            let start = (offset % PAGE as u64) as usize;
            let count = data.len().min(PAGE - start);
            let page =
                self.pages.entry(offset / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + count].copy_from_slice(&data[..count]);
            data = &data[count..];
            offset += count as u64;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let kept = len.div_ceil(PAGE as u64);
            self.pages.retain(|page, _| *page < kept);
            let start = (len % PAGE as u64) as usize;
            if start > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
            {
                Arc::make_mut(page)[start..].fill(0);
            }
        }
        self.len = len;
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { offset, data, .. } => self.write(*offset, data),
            Event::SetLen { len, .. } => self.set_len(*len),
            Event::Extend { len, .. } => self.len = self.len.max(*len),
            _ => {}
        }
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::create_new(path)?;
        file.set_len(self.len)?;
        for (number, page) in &self.pages {
            let offset = number * PAGE as u64;
            let count = (self.len - offset).min(PAGE as u64) as usize;
            file.write_all_at(&page[..count], offset)?;
        }
        Ok(())
    }

    fn load(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let mut content = Self { len: file.metadata()?.len(), pages: BTreeMap::new() };
        let mut offset = 0;
        while offset < content.len {
            let count = (content.len - offset).min(PAGE as u64) as usize;
            let mut page = [0; PAGE];
            file.read_exact_at(&mut page[..count], offset)?;
            if page != [0; PAGE] {
                content.pages.insert(offset / PAGE as u64, Arc::new(page));
            }
            offset += count as u64;
        }
        Ok(content)
    }

    fn same(&self, other: &Content) -> bool {
        let zeros = Arc::new([0; PAGE]);
        self.len == other.len
            && self.pages.keys().chain(other.pages.keys()).all(|page| {
                self.pages.get(page).unwrap_or(&zeros) == other.pages.get(page).unwrap_or(&zeros)
            })
    }
}

/// Directories and files.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Kind>,
}

#[derive(Debug, Clone)]
enum Kind {
    Dir(BTreeMap<OsString, Node>),
    File(Content),
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Kind::Dir(BTreeMap::new())] }
    }
}

impl Tree {
    /// Reads `dir`; returns also which inode is which node.
    ///
    /// # Errors
    ///
    /// If something in it cannot be read.
    pub fn read(dir: &Path) -> io::Result<(Self, HashMap<u64, Node>)> {
        let mut tree = Self::default();
        let mut inodes = HashMap::from([(fs::metadata(dir)?.ino(), ROOT)]);
        tree.read_into(dir, ROOT, &mut inodes)?;
        Ok((tree, inodes))
    }

    fn read_into(
        &mut self,
        dir: &Path,
        node: Node,
        inodes: &mut HashMap<u64, Node>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let child =
                if is_dir { self.add_dir() } else { self.add_file(Content::load(&entry.path())?) };
            inodes.insert(entry.metadata()?.ino(), child);
            self.apply(&NsOp {
                changes: vec![(node, entry.file_name(), Some(child))],
                new_dir: None,
            });
            if is_dir {
                self.read_into(&entry.path(), child, inodes)?;
            }
        }
        Ok(())
    }

    /// Adds a file that has no name yet.
    pub fn add_file(&mut self, content: Content) -> Node {
        self.nodes.push(Kind::File(content));
        self.nodes.len() - 1
    }

    /// Adds a directory that has no name yet.
    pub fn add_dir(&mut self) -> Node {
        self.nodes.push(Kind::Dir(BTreeMap::new()));
        self.nodes.len() - 1
    }

    /// Returns the node at `path` below the root.
    pub fn find(&self, path: &Path) -> Option<Node> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let Kind::Dir(entries) = &self.nodes[node] else {
                return None;
            };
            node = *entries.get(name)?;
        }
        Some(node)
    }

    /// Returns the change that makes `path` name `node`.
    pub fn entry(&self, path: &Path, node: Option<Node>) -> Option<(Node, OsString, Option<Node>)> {
        let dir = self.find(path.parent()?)?;
        Some((dir, path.file_name()?.to_owned(), node))
    }

    /// Applies a change of entries.
    pub fn apply(&mut self, op: &NsOp) {
        for (dir, name, child) in &op.changes {
            let Some(Kind::Dir(entries)) = self.nodes.get_mut(*dir) else {
                continue;
            };
            match child {
                Some(child) => entries.insert(name.clone(), *child),
                None => entries.remove(name),
            };
        }
    }

    /// Writes the tree into `dir`, which is empty.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        self.write_node(ROOT, dir)
    }

    fn write_node(&self, node: Node, path: &Path) -> io::Result<()> {
        match &self.nodes[node] {
            Kind::File(content) => content.store(path),
            Kind::Dir(entries) => {
                if node != ROOT {
                    fs::create_dir(path)?;
                }
                for (name, child) in entries {
                    self.write_node(*child, &path.join(name))?;
                }
                Ok(())
            }
        }
    }

    /// Returns the first difference in names or bytes to `other`.
    pub fn difference(&self, other: &Tree) -> Option<String> {
        self.differ_at(ROOT, other, ROOT, Path::new(""))
    }

    fn differ_at(&self, mine: Node, other: &Tree, theirs: Node, path: &Path) -> Option<String> {
        match (&self.nodes[mine], &other.nodes[theirs]) {
            (Kind::File(a), Kind::File(b)) if a.same(b) => None,
            (Kind::File(a), Kind::File(b)) => {
                Some(format!("{} differs ({} and {} bytes)", path.display(), a.len, b.len))
            }
            (Kind::Dir(a), Kind::Dir(b)) => {
                if !a.keys().eq(b.keys()) {
                    return Some(format!("{} has other names", path.display()));
                }
                a.iter()
                    .zip(b.values())
                    .find_map(|((name, a), b)| self.differ_at(*a, other, *b, &path.join(name)))
            }
            _ => Some(format!("{} is of another kind", path.display())),
        }
    }
}

/// The disk while the record is replayed: what is durable, and what is not yet.
#[derive(Debug, Clone)]
pub struct Disk {
    files: HashMap<Node, Content>,
    strict: Tree,
    journal: Tree,
    pending: BTreeMap<Node, Vec<(usize, Event)>>,
    strict_pending: Vec<(usize, NsOp)>,
    journal_pending: Vec<(usize, NsOp)>,
    syncs: HashMap<u64, (Node, usize)>,
    /// Nodes that are directories, whether or not their making is durable.
    dirs: HashSet<Node>,
    steps: usize,
}

impl Disk {
    /// Starts from a directory that is durable.
    pub fn new(base: &Tree) -> Self {
        let files = base
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(node, kind)| match kind {
                Kind::File(content) => Some((node, content.clone())),
                Kind::Dir(_) => None,
            })
            .collect();
        Self {
            files,
            strict: base.clone(),
            journal: base.clone(),
            pending: BTreeMap::new(),
            strict_pending: Vec::new(),
            journal_pending: Vec::new(),
            syncs: HashMap::new(),
            dirs: HashSet::new(),
            steps: 0,
        }
    }

    /// Replays one event.
    pub fn step(&mut self, event: &Event) {
        self.steps += 1;
        let at = self.steps;
        match event {
            Event::Namespace(op) => {
                self.dirs.extend(op.new_dir);
                self.strict_pending.push((at, op.clone()));
                self.journal_pending.push((at, op.clone()));
            }
            Event::Write { node, .. } | Event::SetLen { node, .. } | Event::Extend { node, .. } => {
                self.pending.entry(*node).or_default().push((at, event.clone()));
            }
            Event::SyncBegin { sync, node } => {
                self.syncs.insert(*sync, (*node, at));
            }
            Event::SyncEnd { sync } => {
                if let Some((node, began)) = self.syncs.remove(sync) {
                    self.synced(node, began);
                }
            }
            Event::Begin(_) | Event::Ack(_) => {}
        }
    }

    /// Makes durable what happened to `node` before the step `began`.
    fn synced(&mut self, node: Node, began: usize) {
        if let Some(pending) = self.pending.remove(&node) {
            let content = self.files.entry(node).or_default();
            let (covered, rest): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|(at, _)| *at < began);
            for (_, event) in &covered {
                content.apply(event);
            }
            if !rest.is_empty() {
                self.pending.insert(node, rest);
            }
        }
        let strict = std::mem::take(&mut self.strict_pending);
        for (at, op) in strict {
            if at < began && op.changes.iter().any(|(dir, ..)| *dir == node) {
                grow(&mut self.strict, &op, &self.dirs);
            } else {
                self.strict_pending.push((at, op));
            }
        }
        let last = self.journal_pending.iter().rposition(|(at, op)| *at < began && op.names(node));
        if let Some(last) = last {
            for (_, op) in self.journal_pending.drain(..=last) {
                grow(&mut self.journal, &op, &self.dirs);
            }
        }
    }

    /// Whether anything is not durable, so that survivors matter.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty() || !self.strict_pending.is_empty()
    }

    /// Returns the disk with everything that was done.
    pub fn everything(&self) -> Tree {
        self.after_cut(Model::Journal, Survivors::All, 0)
    }

    /// Returns the disk after a power cut here. `seed` picks among what may survive.
    pub fn after_cut(&self, model: Model, survivors: Survivors, seed: u64) -> Tree {
        let mut numbers = Numbers::new(seed);
        let mut tree = match model {
            Model::Strict => {
                let mut tree = self.strict.clone();
                let of = self.strict_pending.len();
                for (index, (_, op)) in self.strict_pending.iter().enumerate() {
                    if survivors.keeps(&mut numbers, index, of) {
                        grow(&mut tree, op, &self.dirs);
                    }
                }
                tree
            }
            Model::Journal => {
                let mut tree = self.journal.clone();
                let of = self.journal_pending.len() as u64;
                let kept = match survivors {
                    Survivors::Nothing => 0,
                    Survivors::All => of,
                    _ => numbers.below(of + 1),
                };
                for (_, op) in &self.journal_pending[..kept as usize] {
                    grow(&mut tree, op, &self.dirs);
                }
                tree
            }
        };
        for node in 1..tree.nodes.len() {
            let content = self.content_after_cut(node, survivors, &mut numbers);
            if let Kind::File(file) = &mut tree.nodes[node] {
                *file = content;
            }
        }
        tree
    }

    fn content_after_cut(
        &self,
        node: Node,
        survivors: Survivors,
        numbers: &mut Numbers,
    ) -> Content {
        let mut content = self.files.get(&node).cloned().unwrap_or_default();
        let none = Vec::new();
        let pending = self.pending.get(&node).unwrap_or(&none);
        for (index, (_, event)) in pending.iter().enumerate() {
            let torn = matches!(survivors, Survivors::Sectors | Survivors::MostSectors);
            match event {
                Event::Write { offset, data, .. } if torn => {
                    for (offset, sector) in sectors(*offset, data) {
                        if survivors.keeps(numbers, index, pending.len()) {
                            content.write(offset, sector);
                        }
                    }
                }
                event => {
                    if survivors.keeps(numbers, index, pending.len()) {
                        content.apply(event);
                    }
                }
            }
        }
        content
    }
}

/// Splits a write where sectors end.
fn sectors(mut offset: u64, mut data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    while !data.is_empty() {
        let room = (SECTOR - offset % SECTOR) as usize;
        let (part, rest) = data.split_at(room.min(data.len()));
        parts.push((offset, part));
        offset += part.len() as u64;
        data = rest;
    }
    parts
}

/// Applies `op`, making room for nodes the tree has not seen.
fn grow(tree: &mut Tree, op: &NsOp, dirs: &HashSet<Node>) {
    for (dir, _, child) in &op.changes {
        let top = child.map_or(*dir, |child| child.max(*dir));
        while tree.nodes.len() <= top {
            let node = tree.nodes.len();
            if dirs.contains(&node) {
                tree.add_dir();
            } else {
                tree.add_file(Content::default());
            }
        }
    }
    tree.apply(op);
}
