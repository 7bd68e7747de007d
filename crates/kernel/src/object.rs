//! Loading: an object of `bpf/obj` becomes maps and a program in the kernel.

use std::error::Error;
use std::io;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SockHash, XskMap};
use aya::programs::{Program, ProgramError};

use crate::unavailable::{Release, Unavailable, code_of};

/// A loaded object. The names of maps and programs are those in the C source, which CI compares with the object.
#[derive(Debug)]
pub(crate) struct Object {
    ebpf: Ebpf,
    what: &'static str,
    since: Release,
}

impl Object {
    /// Makes the maps; `what` is it for, in errors, and Linux `since` can do it.
    pub(crate) fn load(object: &[u8], what: &'static str, since: Release) -> Result<Self, Unavailable> {
        let ebpf = Ebpf::load(object).map_err(|error| Unavailable::sort(what, since, &error))?;
        Ok(Self { ebpf, what, since })
    }

    /// Its program, of the type that its section says.
    pub(crate) fn program<P>(&mut self, name: &str) -> &mut P
    where
        for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).expect("the object has the program");
        program.try_into().expect("the program is of that type")
    }

    /// Sorts what went wrong with the object.
    pub(crate) fn unavailable(&self, error: &(dyn Error + 'static)) -> Unavailable {
        Unavailable::sort(self.what, self.since, error)
    }

    /// A map of one value for each index.
    pub(crate) fn array<V: aya::Pod>(&mut self, name: &str) -> Array<MapData, V> {
        Array::try_from(self.take(name)).expect("the map is an array of that")
    }

    /// A map from keys to values.
    pub(crate) fn table<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(self.take(name)).expect("the map is a table of that")
    }

    /// A map of counters.
    pub(crate) fn counters<const N: usize>(&mut self, name: &str) -> Counters<N> {
        Counters(PerCpuArray::try_from(self.take(name)).expect("the map is an array of counters"))
    }

    /// A ring buffer, which is mapped into memory.
    pub(crate) fn ring(&mut self, name: &str) -> Result<RingBuf<MapData>, Unavailable> {
        RingBuf::try_from(self.take(name)).map_err(|error| self.unavailable(&error))
    }

    /// A map of AF_XDP sockets.
    pub(crate) fn sockets(&mut self, name: &str) -> XskMap<MapData> {
        XskMap::try_from(self.take(name)).expect("the map is one of sockets")
    }

    /// A map of connected sockets.
    pub(crate) fn socket_table<K: aya::Pod>(&mut self, name: &str) -> SockHash<MapData, K> {
        SockHash::try_from(self.take(name)).expect("the map is one of sockets by such keys")
    }

    /// The kernel's number of a map that hasn't been taken yet: one of sockets, of counters, an array or a ring.
    pub(crate) fn map_id(&self, name: &str) -> Result<u32, Unavailable> {
        let map = self.ebpf.map(name).expect("the object has the map");
        let (Map::SockHash(map) | Map::PerCpuArray(map) | Map::Array(map) | Map::RingBuf(map)) = map else {
            unreachable!("{name} is of another type")
        };
        map.info().map(|info| info.id()).map_err(|error| self.unavailable(&error))
    }

    fn take(&mut self, name: &str) -> Map {
        self.ebpf.take_map(name).expect("the object has the map, and each is taken once")
    }
}

/// Counters of a program, with a cell for each CPU.
pub(crate) struct Counters<const N: usize>(PerCpuArray<MapData, u64>);

impl<const N: usize> Counters<N> {
    /// Those in a map that was found.
    ///
    /// # Errors
    /// If the map is none of counters.
    pub(crate) fn found(map: MapData) -> Result<Self, MapError> {
        PerCpuArray::try_from(Map::PerCpuArray(map)).map(Self)
    }

    /// The sums over the CPUs. Each is exact, together they are of slightly different moments.
    ///
    /// # Errors
    /// The system's, when the map can't be read.
    pub(crate) fn read(&self) -> io::Result<[u64; N]> {
        let mut sums = [0; N];
        for (index, sum) in (0..).zip(&mut sums) {
            let cells = self.0.get(&index, 0).map_err(|error| to_io(&error))?;
            *sum = cells.iter().fold(0, |sum: u64, cell| sum.wrapping_add(*cell));
        }
        Ok(sums)
    }
}

/// A map's error as the system's.
pub(crate) fn to_io(error: &MapError) -> io::Error {
    code_of(error).map_or_else(|| io::Error::other(error.to_string()), io::Error::from)
}
