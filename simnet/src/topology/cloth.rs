//! Reads CLoTH's files: `nodes*.csv`, `channels*.csv` and `edges*.csv` of one folder.
//!
//! Columns are found by the words of the header, units in brackets left out. Amounts are in
//! millisatoshi. Balances come with the edges, so the network starts with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::import::{ImportError, Malformed, Place, read};
use super::{Channel, Direction, Names, Network, Topology};

/// Reads the network in a folder.
///
/// # Errors
///
/// [`ImportError`], with file, line and value.
pub fn read_folder(folder: &Path) -> Result<Topology, ImportError> {
    let table = |stem: &str| -> Result<(String, Table), ImportError> {
        let path = find(folder, stem)?;
        let name = path.display().to_string();
        let bytes = read(&path)?;
        let table = Table::read(&bytes)
            .map_err(|problem| ImportError::Malformed { path: name.clone(), problem })?;
        Ok((name, table))
    };
    let (nodes_path, nodes) = table("nodes")?;
    let (channels_path, channels) = table("channels")?;
    let (edges_path, edges) = table("edges")?;
    let malformed = |path: &str| {
        let path = path.to_owned();
        move |problem| ImportError::Malformed { path, problem }
    };
    let names = node_names(&nodes).map_err(malformed(&nodes_path))?;
    let edges = Edges::read(&edges).map_err(malformed(&edges_path))?;
    join(names, &channels, &edges).map_err(malformed(&channels_path))
}

fn find(folder: &Path, stem: &str) -> Result<PathBuf, ImportError> {
    let path = folder.display().to_string();
    let entries = std::fs::read_dir(folder)
        .map_err(|source| ImportError::Read { path: path.clone(), source })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            name.starts_with(stem) && name.ends_with(".csv")
        })
        .collect();
    found.sort();
    found.into_iter().next().ok_or_else(|| {
        let detail = format!("no {stem}*.csv in this folder");
        ImportError::Malformed { path, problem: Malformed { place: Place::File, detail } }
    })
}

/// A CSV file of numbers: its header's words and its rows with their lines.
struct Table {
    columns: Vec<String>,
    rows: Vec<(usize, Vec<u64>)>,
}

impl Table {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|error| Malformed {
            place: Place::Byte(error.valid_up_to()),
            detail: "not UTF-8 text".into(),
        })?;
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (_, header) = lines.next().ok_or_else(|| Malformed::line(1, "no header"))?;
        let word = |column: &str| column.split('(').next().unwrap_or("").trim().to_owned();
        let columns: Vec<String> = header.split(',').map(word).collect();
        let mut rows = Vec::new();
        for (line, text) in lines {
            let mut row = Vec::with_capacity(columns.len());
            for (column, value) in columns.iter().zip(text.split(',')) {
                let value = value.trim().parse().map_err(|_| {
                    Malformed::line(line, format!("{column}: `{value}` is no whole number"))
                })?;
                row.push(value);
            }
            if row.len() < columns.len() {
                let detail = format!("{} values for {} columns", row.len(), columns.len());
                return Err(Malformed::line(line, detail));
            }
            rows.push((line, row));
        }
        Ok(Self { columns, rows })
    }

    /// The column with one of these words.
    fn column(&self, words: &[&str]) -> Result<usize, Malformed> {
        self.columns
            .iter()
            .position(|column| words.contains(&column.as_str()))
            .ok_or_else(|| Malformed::line(1, format!("no column `{}`", words[0])))
    }
}

fn node_names(table: &Table) -> Result<Names, Malformed> {
    let id = table.column(&["id"])?;
    let mut names = Names::default();
    for (_, row) in &table.rows {
        names.place(&row[id].to_string());
    }
    Ok(names)
}

struct Edge {
    from: u64,
    to: u64,
    balance_msat: u64,
    direction: Direction,
}

struct Edges(HashMap<u64, Edge>);

impl Edges {
    fn read(table: &Table) -> Result<Self, Malformed> {
        let column = |words: &[&str]| table.column(words);
        let (id, from) = (column(&["id"])?, column(&["from_node_id"])?);
        let (to, balance) = (column(&["to_node_id"])?, column(&["balance"])?);
        let (base, ppm) = (column(&["fee_base"])?, column(&["fee_proportional"])?);
        let (least, delta) = (column(&["min_htlc"])?, column(&["timelock"])?);
        let mut edges = HashMap::new();
        for (line, row) in &table.rows {
            let narrow = |place: usize| {
                u32::try_from(row[place]).map_err(|_| {
                    let (column, value) = (&table.columns[place], row[place]);
                    Malformed::line(*line, format!("{column}: {value} is out of range"))
                })
            };
            let direction = Direction {
                enabled: true,
                htlc_minimum_msat: row[least],
                htlc_maximum_msat: u64::MAX,
                base_msat: narrow(base)?,
                ppm: narrow(ppm)?,
                cltv_expiry_delta: u16::try_from(narrow(delta)?).unwrap_or(u16::MAX),
            };
            let edge = Edge { from: row[from], to: row[to], balance_msat: row[balance], direction };
            if edges.insert(row[id], edge).is_some() {
                return Err(Malformed::line(*line, format!("id: {} stands twice", row[id])));
            }
        }
        Ok(Self(edges))
    }
}

fn join(mut names: Names, table: &Table, edges: &Edges) -> Result<Topology, Malformed> {
    let ids = [table.column(&["edge1_id", "edge1"])?, table.column(&["edge2_id", "edge2"])?];
    let capacity = table.column(&["capacity"])?;
    let mut channels = Vec::with_capacity(table.rows.len());
    let mut first_end_msat = Vec::with_capacity(table.rows.len());
    for (line, row) in &table.rows {
        let edge = |place: usize| {
            let id = row[place];
            let column = &table.columns[place];
            edges.0.get(&id).ok_or_else(|| {
                Malformed::line(*line, format!("{column}: edge {id} is in no file of edges"))
            })
        };
        let (forth, back) = (edge(ids[0])?, edge(ids[1])?);
        let sum = forth.balance_msat.checked_add(back.balance_msat);
        let capacity_msat = row[capacity];
        if sum != Some(capacity_msat) || (forth.from, forth.to) != (back.to, back.from) {
            let detail = format!(
                "capacity {capacity_msat} is not the sum of its edges' balances {} and {}, or \
                 they do not join the same nodes",
                forth.balance_msat, back.balance_msat
            );
            return Err(Malformed::line(*line, detail));
        }
        let limited = |mut direction: Direction| {
            direction.htlc_maximum_msat = capacity_msat;
            direction
        };
        // A channel holds whole satoshis; what is left over belongs to the other end.
        let capacity_sat = capacity_msat / 1_000;
        first_end_msat.push(forth.balance_msat.min(capacity_sat * 1_000));
        channels.push(Channel {
            ends: [names.place(&forth.from.to_string()), names.place(&forth.to.to_string())],
            capacity_sat,
            directions: [limited(forth.direction), limited(back.direction)],
        });
    }
    let names = names.into_names();
    let nodes = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let network = Network { nodes, channels };
    Ok(Topology { network, names, first_end_msat, ..Topology::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: &str = "id,channel_id,counter_edge_id,from_node_id,to_node_id,balance(millisat),\
                         fee_base(millisat),fee_proportional,min_htlc(millisat),timelock\n\
                         0,0,1,0,1,300000,1000,1,1000,40\n1,0,0,1,0,700000,5,2,1,80\n";
    const CHANNELS: &str =
        "id,edge1_id,edge2_id,node1_id,node2_id,capacity(millisat)\n0,0,1,0,1,1000000\n";

    fn folder(channels: &str, edges: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nodes_x.csv"), "id\n0\n1\n").unwrap();
        std::fs::write(folder.path().join("channels_x.csv"), channels).unwrap();
        std::fs::write(folder.path().join("edges_x.csv"), edges).unwrap();
        folder
    }

    #[test]
    fn three_files_make_one_network_with_balances() {
        let topology = read_folder(folder(CHANNELS, EDGES).path()).unwrap();
        assert_eq!(topology.network.nodes, 2);
        assert_eq!(topology.first_end_msat, [300_000]);
        let channel = &topology.network.channels[0];
        assert_eq!((channel.ends, channel.capacity_sat), ([0, 1], 1_000));
        assert_eq!(channel.directions[1].cltv_expiry_delta, 80);
    }

    #[test]
    fn wrong_values_are_named_with_file_and_line() {
        let error = read_folder(folder(CHANNELS, &EDGES.replace("700000", "lots")).path());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("edges_x.csv: line 3: balance: `lots`"), "{error}");
        let error = read_folder(folder(&CHANNELS.replace("0,0,1,0", "0,0,7,0"), EDGES).path());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("channels_x.csv: line 2: edge2_id: edge 7"), "{error}");
        let error = read_folder(folder(&CHANNELS.replace("1000000", "5"), EDGES).path());
        assert!(error.unwrap_err().to_string().contains("capacity 5"));
    }
}
