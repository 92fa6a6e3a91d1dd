//! Who may hold a connection. A guest is a connection on which nobody was authenticated yet.
//!
//! Guests give way, never those who are known: at a limit the guest that has been idle for longest
//! loses its connection, first one of the same address, then one of the address that has most. A
//! guest whose request is being answered isn't idle.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// The places of one listener; cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Table>);

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

struct Table {
    total: usize,
    by_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Guests by address, in the order in which they came or were last answered.
    guests: HashMap<IpAddr, Vec<(u64, Arc<Seat>)>>,
    guest_count: usize,
    known: usize,
}

struct Seat {
    peer: SocketAddr,
    address: IpAddr,
    id: u64,
    in_flight: AtomicUsize,
    asked: AtomicBool,
    known: AtomicBool,
    gives_way: CancellationToken,
    table: Arc<Table>,
}

/// An address as limits see it: of IPv6 the network that one customer has.
fn counted(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Places {
    /// Places for `total` connections, of which three quarters are open to guests, and `by_address`
    /// to the guests of one address.
    #[must_use]
    pub fn new(total: usize, by_address: usize) -> Self {
        Self(Arc::new(Table { total, by_address, open: Mutex::default() }))
    }

    /// A place for a new connection; `None` when all are taken and nobody gives way.
    #[must_use]
    pub fn admit(&self, peer: SocketAddr) -> Option<Guest> {
        let address = counted(peer.ip());
        let table = &self.0;
        let mut open = table.lock();
        let of_address = open.guests.get(&address).map_or(0, Vec::len);
        if of_address >= table.by_address && !open.evict(address) {
            return None;
        }
        let guests_may = table.total - table.total / 4;
        if open.guest_count >= guests_may || open.guest_count + open.known >= table.total {
            let most = open.guests.iter().max_by_key(|(_, seats)| seats.len());
            let most = most.map(|(address, _)| *address)?;
            // If the largest crowd is busy, anybody's idle guest will do.
            let others: Vec<IpAddr> = open.guests.keys().copied().collect();
            if !open.evict(most) && !others.into_iter().any(|address| open.evict(address)) {
                return None;
            }
        }
        open.next += 1;
        let seat = Arc::new(Seat {
            peer,
            address,
            id: open.next,
            in_flight: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            known: AtomicBool::new(false),
            gives_way: CancellationToken::new(),
            table: Arc::clone(table),
        });
        open.guests.entry(address).or_default().push((seat.id, Arc::clone(&seat)));
        open.guest_count += 1;
        Some(Guest { holder: Arc::new(Holder(seat)), place: None })
    }

    /// Connections that are open: guests, and those who are known.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        let open = self.0.lock();
        (open.guest_count, open.known)
    }
}

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Takes the place of the guest of `address` that has been idle for longest.
    fn evict(&mut self, address: IpAddr) -> bool {
        let Some(seats) = self.guests.get(&address) else { return false };
        let idle = seats.iter().find(|(_, s)| s.in_flight.load(Ordering::Acquire) == 0);
        let Some((id, seat)) = idle.map(|(id, seat)| (*id, Arc::clone(seat))) else { return false };
        seat.gives_way.cancel();
        self.leave(address, id)
    }

    fn leave(&mut self, address: IpAddr, id: u64) -> bool {
        let Some(seats) = self.guests.get_mut(&address) else { return false };
        let Some(at) = seats.iter().position(|(seat, _)| *seat == id) else { return false };
        seats.remove(at);
        if seats.is_empty() {
            self.guests.remove(&address);
        }
        self.guest_count -= 1;
        true
    }
}

/// Leaves when the last handle of the connection is gone.
struct Holder(Arc<Seat>);

impl Drop for Holder {
    fn drop(&mut self) {
        let seat = &self.0;
        let mut open = seat.table.lock();
        if seat.known.load(Ordering::Acquire) {
            open.known -= 1;
        } else {
            open.leave(seat.address, seat.id);
        }
    }
}

/// A connection's handle, in the extensions of each of its requests.
#[derive(Clone)]
pub struct Guest {
    holder: Arc<Holder>,
    /// The request's own place, behind a trusted proxy.
    place: Option<Arc<RequestPlace>>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("peer", &self.peer()).finish()
    }
}

impl Guest {
    /// The other end of the connection, which may be a proxy.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.seat().peer
    }

    /// Says that the request's sender proved who they are: the connection is no guest's any more.
    pub fn known(&self) {
        if let Some(place) = &self.place {
            place.leave();
        }
        let seat = self.seat();
        if seat.known.load(Ordering::Acquire) {
            return;
        }
        let mut open = seat.table.lock();
        // One that was told to go is no longer counted, and stays so.
        if open.leave(seat.address, seat.id) {
            open.known += 1;
            seat.known.store(true, Ordering::Release);
        }
    }

    /// Ends when the connection should be closed for the sake of others.
    pub async fn gives_way(&self) {
        self.seat().gives_way.cancelled().await;
    }

    /// Whether a request came on it.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.seat().asked.load(Ordering::Acquire)
    }

    /// Marks the connection as in use until the mark is dropped.
    #[must_use]
    pub fn busy(&self) -> Busy {
        let seat = self.seat();
        seat.asked.store(true, Ordering::Release);
        seat.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(&self.holder))
    }

    pub(crate) fn for_request(&self, place: Option<Arc<RequestPlace>>) -> Self {
        Self { holder: Arc::clone(&self.holder), place }
    }

    fn seat(&self) -> &Seat {
        &self.holder.0
    }
}

/// Somebody's request is being answered.
pub struct Busy(Arc<Holder>);

impl Drop for Busy {
    fn drop(&mut self) {
        let seat = &self.0.0;
        if seat.in_flight.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // From now on it is idle: behind those that are idle already.
        let mut open = seat.table.lock();
        if let Some(seats) = open.guests.get_mut(&seat.address)
            && let Some(at) = seats.iter().position(|(id, _)| *id == seat.id)
        {
            let last = seats.remove(at);
            seats.push(last);
        }
    }
}

/// A body during whose transfer a connection is in use.
pub struct Held<B> {
    body: Pin<Box<B>>,
    busy: Option<Busy>,
}

impl<B> Held<B> {
    /// Holds `busy` until the body has ended.
    pub fn new(body: B, busy: Busy) -> Self {
        Self { body: Box::pin(body), busy: Some(busy) }
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = self.body.as_mut().poll_frame(cx);
        if let Poll::Ready(None) = frame {
            self.busy = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Requests in progress by forwarded address that are not authenticated.
#[derive(Clone)]
pub(crate) struct Requests {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Requests {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, counts: Arc::default() }
    }

    pub(crate) fn admit(&self, from: IpAddr) -> Option<Arc<RequestPlace>> {
        let from = counted(from);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        let counts = Arc::clone(&self.counts);
        Some(Arc::new(RequestPlace { from, counts, left: AtomicBool::new(false) }))
    }
}

pub(crate) struct RequestPlace {
    from: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    left: AtomicBool,
}

impl RequestPlace {
    fn leave(&self) {
        if self.left.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    fn told_to_go(guest: &Guest) -> bool {
        guest.seat().gives_way.is_cancelled()
    }

    #[test]
    fn the_oldest_idle_guest_of_an_address_gives_way_and_nobody_elses() {
        let places = Places::new(100, 2);
        let other = places.admit(from(2)).unwrap();
        let (first, second) = (places.admit(from(1)).unwrap(), places.admit(from(1)).unwrap());
        let third = places.admit(from(1)).unwrap();
        assert!(told_to_go(&first) && !told_to_go(&second) && !told_to_go(&other));
        let (_a, _b) = (second.busy(), third.busy());
        assert!(places.admit(from(1)).is_none(), "who is answered doesn't give way");
        assert_eq!(places.open(), (3, 0));
        drop(first);
        assert_eq!(places.open(), (3, 0), "its place is another's already");
        drop(second);
    }

    #[test]
    fn who_was_answered_last_is_the_last_to_go() {
        let places = Places::new(100, 2);
        let (first, second) = (places.admit(from(1)).unwrap(), places.admit(from(1)).unwrap());
        drop(first.busy());
        let _third = places.admit(from(1)).unwrap();
        assert!(told_to_go(&second) && !told_to_go(&first));
    }

    #[test]
    fn who_is_known_has_room_and_is_never_sent_away() {
        let places = Places::new(8, 100);
        let known: Vec<Guest> = (0..8).map(|_| places.admit(from(1)).unwrap()).collect();
        for guest in &known[2..] {
            guest.known();
        }
        let crowd: Vec<_> = (0..50).filter_map(|n| places.admit(from(n))).collect();
        assert!(known[2..].iter().all(|guest| !told_to_go(guest)));
        assert_eq!(places.open().1, 6);
        assert!(places.open().0 <= 2);
        drop(crowd);
        drop(known);
        assert_eq!(places.open(), (0, 0));
    }

    #[test]
    fn the_largest_crowd_makes_room() {
        let places = Places::new(8, 100);
        let crowd: Vec<_> = (0..5).map(|_| places.admit(from(1)).unwrap()).collect();
        let alone = places.admit(from(2)).unwrap();
        let _next = places.admit(from(3)).unwrap();
        assert!(told_to_go(&crowd[0]) && !told_to_go(&alone));
    }

    #[test]
    fn requests_of_a_forwarded_address_are_counted_until_they_are_known() {
        let requests = Requests::new(2);
        let ip = IpAddr::from([10, 0, 0, 1]);
        let (one, two) = (requests.admit(ip).unwrap(), requests.admit(ip).unwrap());
        assert!(requests.admit(ip).is_none());
        assert!(requests.admit(IpAddr::from([10, 0, 0, 2])).is_some());
        one.leave();
        let three = requests.admit(ip).unwrap();
        assert!(requests.admit(ip).is_none());
        drop((one, two, three));
        assert!(requests.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn one_customer_of_ipv6_is_one_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(counted(ip("2001:db8:1:2::1")), counted(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(counted(ip("2001:db8:1:2::1")), counted(ip("2001:db8:1:3::1")));
        assert_eq!(counted(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }
}
