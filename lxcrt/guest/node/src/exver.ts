/**
 * Versions and version ranges ("ExVer" of StartOS), as objects that a package's
 * own copy of the SDK can work with: it looks at members (`satisfies`,
 * `satisfiedBy`, `atom`, `tables()`, `upstream`...), never at classes, so names
 * and shapes here are the SDK's.
 */

export type Ordering = 'less' | 'equal' | 'greater'
type Operator = '=' | '!=' | '<' | '<=' | '>' | '>='

/** Dotted numbers with an optional prerelease: `1.2.3-beta.1`. */
export class Version {
  readonly number: number[]
  readonly prerelease: (string | number)[]

  constructor(number: number[], prerelease: (string | number)[] = []) {
    this.number = number
    this.prerelease = prerelease
  }

  static parse(text: string): Version {
    const m = /^(\d+(?:\.\d+)*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$/.exec(text)
    if (!m) throw new Error(`invalid version ${JSON.stringify(text)}`)
    const prerelease = m[2]?.split('.').map(s => (/^\d+$/.test(s) ? Number(s) : s)) ?? []
    return new Version(m[1]!.split('.').map(Number), prerelease)
  }

  toString(): string {
    return this.number.join('.') + (this.prerelease.length ? '-' + this.prerelease.join('.') : '')
  }

  /** Missing numbers count as 0; a release follows its prereleases. */
  compareForSort(other: Version): -1 | 0 | 1 {
    for (let i = 0; i < Math.max(this.number.length, other.number.length); i++) {
      const order = sign((this.number[i] ?? 0) - (other.number[i] ?? 0))
      if (order) return order
    }
    const [a, b] = [this.prerelease, other.prerelease]
    if (!a.length || !b.length) return sign((a.length ? 0 : 1) - (b.length ? 0 : 1))
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      const order = compareSegments(a[i]!, b[i]!)
      if (order) return order
    }
    return sign(a.length - b.length)
  }

  compare(other: Version): Ordering {
    return named(this.compareForSort(other))
  }

  satisfies(range: VersionRange): boolean {
    return new ExtendedVersion(null, this, new Version([0])).satisfies(range)
  }
}

function sign(n: number): -1 | 0 | 1 {
  return n < 0 ? -1 : n > 0 ? 1 : 0
}

function named(order: -1 | 0 | 1): Ordering {
  return order < 0 ? 'less' : order > 0 ? 'greater' : 'equal'
}

/** Numbers come before words. */
function compareSegments(a: string | number, b: string | number): -1 | 0 | 1 {
  if (typeof a === 'number' && typeof b === 'number') return sign(a - b)
  if (typeof a === 'number') return -1
  if (typeof b === 'number') return 1
  return a < b ? -1 : a > b ? 1 : 0
}

/** `[#flavor:]upstream:downstream`. */
export class ExtendedVersion {
  readonly flavor: string | null
  readonly upstream: Version
  readonly downstream: Version

  constructor(flavor: string | null, upstream: Version, downstream: Version) {
    this.flavor = flavor
    this.upstream = upstream
    this.downstream = downstream
  }

  static parse(text: string): ExtendedVersion {
    const m = /^(?:#([a-z]*):)?([^:]*):([^:]*)$/.exec(text)
    if (!m) throw new Error(`invalid version ${JSON.stringify(text)}: want [#flavor:]upstream:downstream`)
    return new ExtendedVersion(m[1] || null, Version.parse(m[2]!), Version.parse(m[3]!))
  }

  toString(): string {
    return `${this.flavor ? `#${this.flavor}:` : ''}${this.upstream}:${this.downstream}`
  }

  /** Null between flavors. */
  compare(other: ExtendedVersion): Ordering | null {
    return this.flavor === other.flavor ? named(this.order(other)) : null
  }

  /** By flavor first, so that any list can be sorted; no flavor comes first. */
  compareLexicographic(other: ExtendedVersion): Ordering {
    return named(this.compareForSort(other))
  }

  compareForSort(other: ExtendedVersion): -1 | 0 | 1 {
    return compareSegments(this.flavor ?? '', other.flavor ?? '') || this.order(other)
  }

  private order(other: ExtendedVersion): -1 | 0 | 1 {
    return this.upstream.compareForSort(other.upstream) || this.downstream.compareForSort(other.downstream)
  }

  equals(other: ExtendedVersion): boolean {
    return this.compare(other) === 'equal'
  }

  greaterThan(other: ExtendedVersion): boolean {
    return this.compare(other) === 'greater'
  }

  greaterThanOrEqual(other: ExtendedVersion): boolean {
    return this.greaterThan(other) || this.equals(other)
  }

  lessThan(other: ExtendedVersion): boolean {
    return this.compare(other) === 'less'
  }

  lessThanOrEqual(other: ExtendedVersion): boolean {
    return this.lessThan(other) || this.equals(other)
  }

  /** The first version after `^this`: its first number that is not 0 (the last if all are) is raised. */
  incrementMajor(): ExtendedVersion {
    return this.raised(0)
  }

  /** The first version after `~this`: the number after that one is raised. */
  incrementMinor(): ExtendedVersion {
    return this.raised(1)
  }

  private raised(after: 0 | 1): ExtendedVersion {
    const { number, prerelease } = this.upstream
    let length = number.length
    while (length > 1 && number[length - 1] === 0) length--
    const first = number.slice(0, length).findIndex(n => n !== 0)
    const at = (first < 0 ? length - 1 : first) + after
    const upper = Array.from({ length: at + 1 }, (_, i) => number[i] ?? 0)
    upper[at]!++
    return new ExtendedVersion(this.flavor, new Version(upper, prerelease), new Version([0]))
  }

  satisfies(range: VersionRange): boolean {
    const { atom } = range
    switch (atom.type) {
      case 'Any':
        return true
      case 'None':
        return false
      case 'Flavor':
        return atom.flavor === this.flavor
      case 'Not':
        return !this.satisfies(atom.value)
      case 'And':
        return this.satisfies(atom.left) && this.satisfies(atom.right)
      case 'Or':
        return this.satisfies(atom.left) || this.satisfies(atom.right)
    }
    const { operator, version } = atom
    switch (operator) {
      case '=':
        return this.equals(version)
      case '!=':
        return !this.equals(version)
      case '<':
        return this.lessThan(version)
      case '<=':
        return this.lessThanOrEqual(version)
      case '>':
        return this.greaterThan(version)
      case '>=':
        return this.greaterThanOrEqual(version)
      case '^':
        return this.greaterThanOrEqual(version) && this.lessThan(version.incrementMajor())
      case '~':
        return this.greaterThanOrEqual(version) && this.lessThan(version.incrementMinor())
    }
  }
}

/** A range's outermost part. `^` and `~` occur only in ranges made by a package's own copy. */
export type Atom =
  | { type: 'Anchor'; operator: Operator | '^' | '~'; version: ExtendedVersion }
  | { type: 'And' | 'Or'; left: VersionRange; right: VersionRange }
  | { type: 'Not'; value: VersionRange }
  | { type: 'Flavor'; flavor: string | null }
  | { type: 'Any' | 'None' }

type FlavorAtom = { type: 'Flavor'; flavor: string | null } | { type: 'FlavorNot'; flavors: Set<string | null> }

/** A place just below (-1) or above (1) a version. */
interface Point {
  upstream: Version
  downstream: Version
  side: -1 | 1
}

/** Truth along the line of versions: values[i] holds between points[i-1] and points[i]. */
interface Table {
  points: Point[]
  values: boolean[]
}

/** Truth for every flavor: the keys part all flavors among them. A boolean means everywhere. */
export type Tables = Map<FlavorAtom, Table> | boolean

/** A set of versions. */
export class VersionRange {
  readonly atom: Atom

  constructor(atom: Atom) {
    this.atom = atom
  }

  static parse(text: string): VersionRange {
    return new RangeParser(text).parse()
  }

  static any(): VersionRange {
    return new VersionRange({ type: 'Any' })
  }

  static none(): VersionRange {
    return new VersionRange({ type: 'None' })
  }

  static anchor(operator: Operator, version: ExtendedVersion): VersionRange {
    return new VersionRange({ type: 'Anchor', operator, version })
  }

  static flavor(flavor: string | null): VersionRange {
    return new VersionRange({ type: 'Flavor', flavor })
  }

  and(right: VersionRange): VersionRange {
    return new VersionRange({ type: 'And', left: this, right })
  }

  or(right: VersionRange): VersionRange {
    return new VersionRange({ type: 'Or', left: this, right })
  }

  not(): VersionRange {
    return new VersionRange({ type: 'Not', value: this })
  }

  satisfiedBy(version: Version | ExtendedVersion): boolean {
    return version.satisfies(this)
  }

  /** Whether any version is in the range. */
  satisfiable(): boolean {
    return cells(this.tables()).some(([, table]) => table.values.includes(true))
  }

  intersects(other: VersionRange): boolean {
    return this.and(other).satisfiable()
  }

  equals(other: VersionRange): boolean {
    const differ = zipTables(this.tables(), other.tables(), (a, b) => a !== b)
    return !cells(differ).some(([, table]) => table.values.includes(true))
  }

  /** The same set, as alternatives of simple spans. */
  normalize(): VersionRange {
    const terms: VersionRange[] = []
    let all = true
    for (const [flavor, table] of cells(this.tables())) {
      all &&= !table.values.includes(false)
      table.values.forEach((value, i) => {
        if (value) terms.push(span(flavor, table.points[i - 1], table.points[i]))
      })
    }
    if (all) return VersionRange.any()
    return terms.length ? terms.reduce((a, b) => a.or(b)) : VersionRange.none()
  }

  tables(): Tables {
    const { atom } = this
    switch (atom.type) {
      case 'Any':
        return true
      case 'None':
        return false
      case 'Flavor':
        return within(atom.flavor, { points: [], values: [true] })
      case 'Not':
        return zipTables(atom.value.tables(), true, a => !a)
      case 'And':
        return zipTables(atom.left.tables(), atom.right.tables(), (a, b) => a && b)
      case 'Or':
        return zipTables(atom.left.tables(), atom.right.tables(), (a, b) => a || b)
    }
    const { operator, version } = atom
    const below = point(version, -1)
    const above = point(version, 1)
    const table = (points: Point[], ...values: boolean[]) => within(version.flavor, { points, values })
    switch (operator) {
      case '=':
        return table([below, above], false, true, false)
      case '!=': // of any flavor, so not "< or >"
        return zipTables(table([below, above], false, true, false), true, a => !a)
      case '<':
        return table([below], true, false)
      case '<=':
        return table([above], true, false)
      case '>':
        return table([above], false, true)
      case '>=':
        return table([below], false, true)
      case '^':
        return table([below, point(version.incrementMajor(), -1)], false, true, false)
      case '~':
        return table([below, point(version.incrementMinor(), -1)], false, true, false)
    }
  }

  toString(): string {
    const { atom } = this
    switch (atom.type) {
      case 'Any':
        return '*'
      case 'None':
        return '!'
      case 'Flavor':
        return `#${atom.flavor ?? ''}`
      case 'Anchor':
        return `${atom.operator}${atom.version}`
      case 'Not':
        return `!${atom.value.toStringParens('Not')}`
      case 'And':
      case 'Or':
        return [atom.left, atom.right].map(r => r.toStringParens(atom.type)).join(atom.type === 'And' ? ' && ' : ' || ')
    }
  }

  /** The text as part of a larger one. */
  toStringParens(parent: 'And' | 'Or' | 'Not'): string {
    const { type } = this.atom
    const bare =
      type === 'Flavor' || type === 'Not' || type === parent || (parent !== 'Not' && type !== 'And' && type !== 'Or')
    return bare ? this.toString() : `(${this})`
  }
}

function point(version: ExtendedVersion, side: -1 | 1): Point {
  return { upstream: version.upstream, downstream: version.downstream, side }
}

function within(flavor: string | null, table: Table): Tables {
  return new Map<FlavorAtom, Table>([
    [{ type: 'Flavor', flavor }, table],
    [
      { type: 'FlavorNot', flavors: new Set([flavor]) },
      { points: [], values: [false] },
    ],
  ])
}

function cells(tables: Tables): [FlavorAtom, Table][] {
  if (typeof tables !== 'boolean') return [...tables]
  return [
    [
      { type: 'FlavorNot', flavors: new Set() },
      { points: [], values: [tables] },
    ],
  ]
}

/** Combines two tables of truth, flavor by flavor and span by span. */
function zipTables(a: Tables, b: Tables, combine: (a: boolean, b: boolean) => boolean): Tables {
  if (typeof a === 'boolean' && typeof b === 'boolean') return combine(a, b)
  const out = new Map<FlavorAtom, Table>()
  for (const [flavorA, tableA] of cells(a)) {
    for (const [flavorB, tableB] of cells(b)) {
      const flavor = meet(flavorA, flavorB)
      if (flavor) out.set(flavor, zip(tableA, tableB, combine))
    }
  }
  return out
}

/** The flavors in both, or null when there are none. */
function meet(a: FlavorAtom, b: FlavorAtom): FlavorAtom | null {
  if (a.type === 'FlavorNot' && b.type === 'FlavorNot') {
    return { type: 'FlavorNot', flavors: new Set([...a.flavors, ...b.flavors]) }
  }
  if (a.type === 'FlavorNot') return meet(b, a)
  const both = b.type === 'Flavor' ? a.flavor === b.flavor : !b.flavors.has(a.flavor)
  return both ? { type: 'Flavor', flavor: a.flavor } : null
}

function zip(a: Table, b: Table, combine: (a: boolean, b: boolean) => boolean): Table {
  const out: Table = { points: [], values: [combine(a.values[0]!, b.values[0]!)] }
  let i = 0
  let j = 0
  while (i < a.points.length || j < b.points.length) {
    const p = a.points[i]
    const q = b.points[j]
    const order = !p ? 1 : !q ? -1 : comparePoints(p, q)
    if (order <= 0) i++
    if (order >= 0) j++
    const value = combine(a.values[i]!, b.values[j]!)
    if (value !== out.values[out.values.length - 1]) {
      out.points.push(order <= 0 ? p! : q!)
      out.values.push(value)
    }
  }
  return out
}

function comparePoints(a: Point, b: Point): -1 | 0 | 1 {
  return (
    a.upstream.compareForSort(b.upstream) || a.downstream.compareForSort(b.downstream) || sign(a.side - b.side)
  )
}

/** The range of one flavor's versions between two points. */
function span(flavor: FlavorAtom, from: Point | undefined, to: Point | undefined): VersionRange {
  if (flavor.type === 'FlavorNot') {
    const others = [...flavor.flavors].map(f => VersionRange.flavor(f).not())
    return others.length ? others.reduce((a, b) => a.and(b)) : VersionRange.any()
  }
  const at = (p: Point) => new ExtendedVersion(flavor.flavor, p.upstream, p.downstream)
  if (from && to && from.side < to.side && at(from).equals(at(to))) return VersionRange.anchor('=', at(from))
  const ends: VersionRange[] = []
  if (from) ends.push(VersionRange.anchor(from.side < 0 ? '>=' : '>', at(from)))
  if (to) ends.push(VersionRange.anchor(to.side < 0 ? '<' : '<=', at(to)))
  return ends.length ? ends.reduce((a, b) => a.and(b)) : VersionRange.flavor(flavor.flavor)
}

/**
 * Reads ranges from left to right: `&&` and `||` bind alike, and parts that
 * merely follow each other are joined as the last two were (at first: and).
 */
class RangeParser {
  private readonly text: string
  private at = 0

  constructor(text: string) {
    this.text = text
  }

  parse(): VersionRange {
    const range = this.sequence()
    if (this.at < this.text.length) this.fail()
    return range
  }

  private sequence(): VersionRange {
    let range = this.atom()
    let join = '&&'
    for (;;) {
      this.blank()
      if (this.at >= this.text.length || this.text[this.at] === ')') return range
      join = this.take(/&&|\|\|/y)?.[0] ?? join
      const next = this.atom()
      range = join === '||' ? range.or(next) : range.and(next)
    }
  }

  private atom(): VersionRange {
    this.blank()
    if (this.take(/\(/y)) {
      const inner = this.sequence()
      if (!this.take(/\)/y)) this.fail()
      return inner
    }
    if (this.take(/\*/y)) return VersionRange.any()
    if (this.take(/!(?!=)/y)) {
      this.blank()
      // Alone it is the empty range, before an operand it negates.
      return /^(?:$|\)|&&|\|\|)/.test(this.text.slice(this.at)) ? VersionRange.none() : this.atom().not()
    }
    const flavor = this.take(/#([a-z]*)(?![a-z:])/y)
    if (flavor) return VersionRange.flavor(flavor[1] || null)
    const anchor = this.take(/(>=|<=|!=|[=<>^~])?[ \t\r\n]*(?:#([a-z]*):)?([0-9][0-9A-Za-z.-]*)(?::([0-9][0-9A-Za-z.-]*))?/y)
    if (!anchor) return this.fail()
    const version = new ExtendedVersion(anchor[2] || null, Version.parse(anchor[3]!), Version.parse(anchor[4] ?? '0'))
    const operator = anchor[1] ?? '^'
    if (operator === '^' || operator === '~') {
      const upper = operator === '^' ? version.incrementMajor() : version.incrementMinor()
      return VersionRange.anchor('>=', version).and(VersionRange.anchor('<', upper))
    }
    return VersionRange.anchor(operator as Operator, version)
  }

  private blank(): void {
    this.take(/[ \t\r\n]*/y)
  }

  private take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at
    const found = pattern.exec(this.text)
    if (found) this.at = pattern.lastIndex
    return found
  }

  private fail(): never {
    throw new Error(`invalid version range ${JSON.stringify(this.text)} at character ${this.at + 1}`)
  }
}

/** What a package is left for: an exact version, a range, or null (it is removed). */
export function parseTarget(target: unknown): ExtendedVersion | VersionRange | null {
  if (target === null) return null
  if (typeof target !== 'string') throw new Error('exit: target must be a string or null')
  try {
    return ExtendedVersion.parse(target)
  } catch {
    return VersionRange.parse(target)
  }
}
