/** Reads values of the API's JSON form. */

/** Return the seconds of a duration such as "1.5s"; 0: unset. */
export function durationSeconds(duration) {
  return duration ? Number.parseFloat(duration) : 0;
}

/** Return the name of an enum's value without the prefix of its type, in lower case. */
export function enumName(value = "", prefix) {
  return value.replace(prefix, "").replaceAll("_", " ").toLowerCase();
}
