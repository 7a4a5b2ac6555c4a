/** A JSON value that nobody may change. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [member: string]: Json };

/** equal says whether two values are the same JSON, whatever the order of members. */
export function equal(a: Json, b: Json): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (isArray(a)) {
    return isArray(b) && a.length === b.length && a.every((v, i) => equal(v, b[i]!));
  }
  if (isArray(b)) return false;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((n) => Object.hasOwn(b, n) && equal(a[n]!, b[n]!));
}

export function isArray(v: Json): v is readonly Json[] {
  return Array.isArray(v);
}
