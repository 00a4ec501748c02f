//! When to ask a server again.

use std::time::{Duration, SystemTime};

/// However long a server wants to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How long a `Retry-After` header asks to wait: a number of seconds or a date (RFC 9110, section 10.2.3); an hour at most.
#[must_use]
pub fn retry_after(header: &str) -> Option<Duration> {
    pause_until(header, SystemTime::now())
}

fn pause_until(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok().map(|pause| pause.min(LONGEST_PAUSE));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST_PAUSE))
}

/// Full jitter: anywhere up to half a second, doubled each time, a minute at most.
#[must_use]
pub fn back_off(attempt: u32) -> Duration {
    let limit = 0.5 * 2f64.powi(attempt.min(7) as i32);
    Duration::from_secs_f64(limit.min(60.0) * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        for attempt in 0..40 {
            assert!(back_off(attempt) <= Duration::from_secs_f64((0.5 * 2f64.powi(attempt.min(20) as i32)).min(60.0)));
        }
    }

    #[test]
    fn servers_say_when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(pause_until("3", now), Some(Duration::from_secs(3)));
        assert_eq!(pause_until("0.25", now), Some(Duration::from_millis(250)));
        assert_eq!(pause_until("Sun, 06 Nov 1994 08:49:40 GMT", now), Some(Duration::from_secs(3)));
        assert_eq!(pause_until("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!((pause_until("soon", now), pause_until("-1", now)), (None, None));
        assert_eq!(pause_until("10000000000000000000", now), Some(LONGEST_PAUSE));
        assert_eq!(pause_until("Fri, 31 Dec 9999 23:59:59 GMT", now), Some(LONGEST_PAUSE));
    }
}
