//! Who stands where in a tree, from the number of users and the radix alone.
//!
//! With `D = max(1, ⌈log_radix N⌉)`, the tree is complete down to level `D - 2`; its last places
//! are given, from the left, to transactions that fund up to `radix` channels each, and what
//! users remain stand one level higher, each directly below a node. So every path has `D`
//! transactions or one less, no transaction but one has fewer children than the radix, and a
//! tree needs no more than `⌈(N - 1) / (radix - 1)⌉` transactions, the least possible.
//!
//! Users of one node are consecutive, so a range says who signs it. Both sides compute the same
//! shape; nothing of it is sent but `N`, the radix and the user's place.
//!
//! Source: BATCHES §2.

use std::fmt;
use std::ops::Range;

/// Most users of one batch.
///
/// A proposal carries one key of 33 bytes for each and must fit into one message of BOLT 1.
pub const BATCH_SIZE_MAX: usize = 1_900;

/// Most children of one tree transaction, which keeps it far below TRUC's 10,000 vB.
pub const RADIX_MAX: u8 = 16;

/// From this number of users on the default radix is 8 instead of 4.
pub const WIDE_FROM: usize = 1_024;

/// Most transactions of one path: a binary tree of [`BATCH_SIZE_MAX`] users has 11 levels.
pub const LEVELS_MAX: usize = 11;

/// Number of children of a tree transaction: 2 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Radix(u8);

impl Radix {
    /// Makes a radix, or `None` outside 2 to [`RADIX_MAX`].
    pub fn new(radix: u8) -> Option<Self> {
        (2..=RADIX_MAX).contains(&radix).then_some(Self(radix))
    }

    /// Returns the default for a batch of `users`: 4, and 8 from 1,024 users on.
    pub fn for_size(users: usize) -> Self {
        if users >= WIDE_FROM { Self(8) } else { Self(4) }
    }

    /// Returns the number.
    pub fn get(self) -> u8 {
        self.0
    }

    fn wide(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Radix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A user's place in a tree: 0 to `N - 1`, in the order of the hub's list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserSlot(pub u16);

impl UserSlot {
    /// Returns the place as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn from_index(index: usize) -> Self {
        Self(u16::try_from(index).expect("a shape has at most BATCH_SIZE_MAX users"))
    }
}

impl fmt::Display for UserSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a transaction that funds channels, among those of its tree, in the tree's order.
///
/// Virtual confirmation gives each such transaction a place in a block by this number
/// (BATCHES §4.1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct LeafSlot(pub u16);

/// First index in a block that virtual transactions take: beyond any real one, which needs at
/// least 60 bytes of a block of 4,000,000 weight units.
pub const VIRTUAL_INDEX_BASE: u32 = 0x40_0000;

/// Last index in a block that a short channel id can name: 24 bits.
pub const VIRTUAL_INDEX_MAX: u32 = 0xff_ffff;

/// Virtual indices that belong to each transaction of a block: as many as there are for the most
/// transactions that a block may have, 16,666 of 60 bytes.
pub const VIRTUAL_INDICES_PER_ROOT: u32 = (VIRTUAL_INDEX_MAX - VIRTUAL_INDEX_BASE + 1) / 16_667;

impl LeafSlot {
    /// Returns the index in its block at which the transaction is shown to LDK, or `None` if there
    /// is none.
    ///
    /// `place` is the index of the batch transaction in its block, and `before` counts the funding
    /// transactions ([`Shape::leaves`]) of other batches whose roots are outputs of the same
    /// transaction, 0 for an honest hub. So no two channels have one short channel id, which LDK
    /// asserts; and hub and user find the same, though only the hub knows of its other batches in
    /// that block: a peer's `channel_update` names the channel by it.
    pub fn virtual_index(self, place: usize, before: u32) -> Option<u32> {
        let own = before.checked_add(u32::from(self.0))?;
        let first = u32::try_from(place).ok()?.checked_mul(VIRTUAL_INDICES_PER_ROOT)?;
        let index = VIRTUAL_INDEX_BASE.checked_add(first)?.checked_add(own)?;
        (own < VIRTUAL_INDICES_PER_ROOT && index <= VIRTUAL_INDEX_MAX).then_some(index)
    }
}

/// Why there is no such tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The number of users is outside the range.
    #[error("a batch has 1 to {max} users, not {users}", max = BATCH_SIZE_MAX)]
    Size {
        /// The number asked for.
        users: usize,
    },
    /// The place is not one of this tree.
    #[error("slot {slot} is not below {users}, the number of users of the batch")]
    Slot {
        /// The place asked for.
        slot: UserSlot,
        /// The number of users.
        users: usize,
    },
}

/// The form of one tree.
///
/// ```
/// use channel_contracts::tree::{Radix, Shape, UserSlot};
///
/// let shape = Shape::new(256, Radix::for_size(256))?;
/// assert_eq!((shape.levels(), shape.nodes().len()), (4, 85));
/// // The root, then the first of four in each of the levels below.
/// let path = shape.path(UserSlot(3))?;
/// assert_eq!(path.iter().map(|node| node.users.len()).collect::<Vec<_>>(), [256, 64, 16, 4]);
/// # Ok::<(), channel_contracts::tree::ShapeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    users: usize,
    radix: Radix,
    levels: usize,
}

/// One tree transaction of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeNode {
    /// Its level: 0 spends the root output.
    pub level: usize,
    /// The users below it, who sign it with the hub.
    pub users: Range<usize>,
    /// Its children, by ascending output index.
    pub children: Vec<Child>,
}

/// What one output of a tree transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// The funding output of this user's channel.
    Channel(UserSlot),
    /// A node output above these users.
    Node(Range<usize>),
}

impl Child {
    /// Returns the users at or below it.
    pub fn users(&self) -> Range<usize> {
        match self {
            Self::Channel(slot) => slot.index()..slot.index() + 1,
            Self::Node(users) => users.clone(),
        }
    }
}

impl ShapeNode {
    /// Tells whether it funds a channel.
    pub fn is_leaf(&self) -> bool {
        self.children.iter().any(|child| matches!(child, Child::Channel(_)))
    }

    /// Returns the index of the output at or above `slot`, if the user is below this node.
    pub fn position(&self, slot: UserSlot) -> Option<usize> {
        self.children.iter().position(|child| child.users().contains(&slot.index()))
    }
}

impl Shape {
    /// Makes the shape of a tree of `users` channels.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Size`] unless there are 1 to [`BATCH_SIZE_MAX`] users.
    pub fn new(users: usize, radix: Radix) -> Result<Self, ShapeError> {
        if !(1..=BATCH_SIZE_MAX).contains(&users) {
            return Err(ShapeError::Size { users });
        }
        let mut levels = 1;
        let mut capacity = radix.wide();
        while capacity < users {
            capacity *= radix.wide();
            levels += 1;
        }
        Ok(Self { users, radix, levels })
    }

    /// Returns the number of users.
    pub fn users(&self) -> usize {
        self.users
    }

    /// Returns the radix.
    pub fn radix(&self) -> Radix {
        self.radix
    }

    /// Returns `D`, the number of transactions of the longest path.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Returns the root and all nodes below it, each parent before its children, from the left.
    pub fn nodes(&self) -> Vec<ShapeNode> {
        let mut nodes = vec![];
        let mut open = vec![(0, 0)];
        while let Some((level, place)) = open.pop() {
            let (node, below) = self.node(level, place);
            nodes.push(node);
            open.extend(below.into_iter().rev().map(|place| (level + 1, place)));
        }
        nodes
    }

    /// Counts the transactions that fund channels.
    pub fn leaves(&self) -> usize {
        self.nodes().iter().filter(|node| node.is_leaf()).count()
    }

    /// Returns the nodes from the root to the transaction that funds the channel of `slot`.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn path(&self, slot: UserSlot) -> Result<Vec<ShapeNode>, ShapeError> {
        if slot.index() >= self.users {
            return Err(ShapeError::Slot { slot, users: self.users });
        }
        let (mut level, mut place, mut path) = (0, 0, vec![]);
        loop {
            let (node, _) = self.node(level, place);
            let position = node.position(slot).expect("ranges of children cover their parent's");
            let done = matches!(node.children[position], Child::Channel(_));
            path.push(node);
            if done {
                return Ok(path);
            }
            place = place * self.radix.wide() + position;
            level += 1;
        }
    }

    /// Returns the number of the transaction that funds the channel of `slot`.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn leaf_slot(&self, slot: UserSlot) -> Result<LeafSlot, ShapeError> {
        if slot.index() >= self.users {
            return Err(ShapeError::Slot { slot, users: self.users });
        }
        let leaves = self.nodes().into_iter().filter(ShapeNode::is_leaf);
        let owner = |node: ShapeNode| node.children.contains(&Child::Channel(slot));
        let index = leaves.map(owner).position(|mine| mine);
        let index = index.expect("every user below N has one transaction that funds it");
        Ok(LeafSlot(u16::try_from(index).expect("there are no more leaves than users")))
    }

    /// Returns the node at `place` of `level`, and the places of its inner children.
    fn node(&self, level: usize, place: usize) -> (ShapeNode, Vec<usize>) {
        let users = self.below(level, place);
        if level + 1 == self.levels {
            let children = users.clone().map(UserSlot::from_index).map(Child::Channel).collect();
            return (ShapeNode { level, users, children }, vec![]);
        }
        let first = place * self.radix.wide();
        let places = first..first + self.radix.wide();
        let child = |place| match self.below(level + 1, place) {
            users if users.len() == 1 => Child::Channel(UserSlot::from_index(users.start)),
            users => Child::Node(users),
        };
        let children: Vec<Child> = places.clone().map(child).collect();
        let inner = places
            .zip(&children)
            .filter_map(|(place, child)| matches!(child, Child::Node(_)).then_some(place))
            .collect();
        (ShapeNode { level, users, children }, inner)
    }

    /// Returns the users below `place` of `level`.
    fn below(&self, level: usize, place: usize) -> Range<usize> {
        let width = self.radix.wide().pow((self.levels - 1 - level) as u32);
        self.users_before(place * width)..self.users_before((place + 1) * width)
    }

    /// Counts the users left of a place of the last level.
    fn users_before(&self, place: usize) -> usize {
        let radix = self.radix.wide();
        let places = radix.pow((self.levels - 1) as u32);
        // Each place takes one user; one that funds several takes `radix - 1` more.
        let several = (self.users - places.min(self.users)).div_ceil(radix - 1);
        if self.levels == 1 {
            place * self.users
        } else if place < several {
            place * radix
        } else {
            self.users - (places - place)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn radix(radix: u8) -> Radix {
        Radix::new(radix).unwrap()
    }

    #[test]
    fn every_user_has_one_path_of_d_levels_or_one_less() {
        for r in [2, 3, 4, 8, 16] {
            for users in (1..200).chain([255, 256, 257, 1_023, 1_024, 1_900]) {
                let shape = Shape::new(users, radix(r)).unwrap();
                let mut seen = vec![];
                for node in shape.nodes() {
                    assert!(node.children.len() <= usize::from(r));
                    let below: Vec<usize> = node.children.iter().flat_map(Child::users).collect();
                    assert_eq!(below, node.users.clone().collect::<Vec<_>>());
                    for child in &node.children {
                        if let Child::Channel(slot) = child {
                            assert!(
                                node.level + 1 == shape.levels || node.level + 2 == shape.levels
                            );
                            seen.push(slot.index());
                        }
                    }
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..users).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_tree_has_as_few_transactions_as_possible() {
        for r in [2, 4, 8] {
            for users in 2..300 {
                let count = Shape::new(users, radix(r)).unwrap().nodes().len();
                assert_eq!(count, (users - 1).div_ceil(usize::from(r) - 1), "{users} radix {r}");
            }
        }
        assert_eq!(Shape::new(1, radix(4)).unwrap().nodes().len(), 1);
    }

    #[test]
    fn a_path_is_the_chain_of_nodes_above_its_user() {
        for (users, r) in [(1, 4), (5, 4), (17, 4), (33, 2), (256, 4), (300, 8)] {
            let shape = Shape::new(users, radix(r)).unwrap();
            for slot in (0..users).map(UserSlot::from_index) {
                let above: Vec<ShapeNode> = shape
                    .nodes()
                    .into_iter()
                    .filter(|node| node.users.contains(&slot.index()))
                    .collect();
                assert_eq!(shape.path(slot).unwrap(), above);
            }
        }
    }

    #[test]
    fn leaf_slots_count_funding_transactions_in_order() {
        let shape = Shape::new(5, radix(4)).unwrap();
        let slots: Vec<u16> =
            (0..5).map(|user| shape.leaf_slot(UserSlot(user)).unwrap().0).collect();
        // The root funds three channels itself and comes first.
        assert_eq!(slots, [1, 1, 0, 0, 0]);
        assert_eq!(shape.leaves(), 2);
        assert_eq!(VIRTUAL_INDICES_PER_ROOT, 754);
        assert_eq!(LeafSlot(1).virtual_index(0, 7), Some(0x40_0008));
        assert_eq!(LeafSlot(1).virtual_index(3, 0), Some(0x40_0001 + 3 * 754));
        // Of the last transaction of a block, all; none that is the next one's.
        assert_eq!(LeafSlot(753).virtual_index(16_666, 0), Some(0x40_0000 + 16_667 * 754 - 1));
        assert_eq!(LeafSlot(753).virtual_index(16_666, 1), None);
        assert_eq!(LeafSlot(754).virtual_index(1, 0), None);
        assert_eq!(LeafSlot(1).virtual_index(16_700, 0), None);
        assert_eq!(LeafSlot(1).virtual_index(usize::MAX, u32::MAX), None);
        assert_eq!(
            shape.leaf_slot(UserSlot(5)),
            Err(ShapeError::Slot { slot: UserSlot(5), users: 5 })
        );
    }

    #[test]
    fn sizes_outside_the_range_are_refused() {
        for users in [0, BATCH_SIZE_MAX + 1] {
            assert_eq!(Shape::new(users, radix(4)), Err(ShapeError::Size { users }));
        }
        assert_eq!(Shape::new(BATCH_SIZE_MAX, radix(2)).unwrap().levels(), LEVELS_MAX);
        assert_eq!((Radix::new(1), Radix::new(17)), (None, None));
        assert_eq!((Radix::for_size(1_023), Radix::for_size(1_024)), (radix(4), radix(8)));
    }
}
