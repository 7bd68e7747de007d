//! The time of day as HTTP has it (RFC 9110, section 5.6.7).

use std::fmt::Write as _;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Writes the moment `seconds` after the beginning of 1970 in place of what `text` holds.
pub(crate) fn write(text: &mut String, seconds: u64) {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the day that a leap year adds; 400 of them have 146,097 days.
    let since = days + 719_468;
    let day_of_era = since % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = since / 146_097 * 400 + year_of_era + u64::from(from_march >= 10);
    let [day_name, month_name] = [DAYS[index(days % 7)], MONTHS[index(month)]];
    text.clear();
    write!(
        text,
        "{day_name}, {day:02} {month_name} {year} {:02}:{:02}:{:02} GMT",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
    .expect("a string takes what it's given");
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("fewer than twelve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_names_that_http_gives_them() {
        for (seconds, name) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            let mut text = String::from("before");
            write(&mut text, seconds);
            assert_eq!(text, name);
        }
    }
}
