'use strict';
// Made from src by build.mjs; edit there. Sources: sha256 2757dc8b6975609547204f5ddcb424a1aadd723efe5296541a9b550921aba7ec
const outer = require;
const loaded = {};
function load(name) {
  if (!Object.hasOwn(modules, name)) return outer(name);
  if (!Object.hasOwn(loaded, name)) modules[name]((loaded[name] = {}), load);
  return loaded[name];
}
load.main = outer.main;
const modules = {
'./bundle'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.loadBundle = loadBundle;
const fs = require("node:fs");
const path = require("node:path");
function loadBundle(folder) {
    const file = path.join(folder, 'index.js');
    if (!fs.existsSync(file)) {
        if (fs.existsSync(path.join(folder, 'embassy.js'))) {
            throw new Error('the package has an embassy.js, made for StartOS 0.3.5; that format is not supported');
        }
        throw new Error(`${file} not found`);
    }
    const bundle = require(file);
    for (const name of ['init', 'main', 'uninit']) {
        if (typeof bundle[name] !== 'function')
            throw new Error(`${file} does not export the function ${name}`);
    }
    return bundle;
}
},
'./callbacks'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.Callbacks = void 0;
class Callbacks {
    functions = new Map();
    lastId = 0;
    add(fn) {
        const id = ++this.lastId;
        this.functions.set(id, fn);
        return id;
    }
    drop(ids) {
        return [...ids].filter(id => this.functions.delete(id));
    }
    has(id) {
        return this.functions.has(id);
    }
    ids() {
        return [...this.functions.keys()];
    }
    fire(id, args) {
        const fn = this.functions.get(id);
        if (!fn)
            return;
        this.functions.delete(id);
        void (async () => fn(...args))().catch(e => console.error(`callback ${id}:`, e));
    }
}
exports.Callbacks = Callbacks;
},
'./context'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.Context = void 0;
const effects_1 = require("./effects");
class Context {
    eventId;
    effects;
    left = false;
    shared;
    children = new Map();
    hooks = [];
    callbacks = new Set();
    constructor(shared, eventId) {
        this.shared = shared;
        this.eventId = eventId;
        this.effects = (0, effects_1.effectsOf)(this);
    }
    enter(name, eventId = this.eventId) {
        this.leave(name);
        const child = new Context(this.shared, eventId);
        if (this.left)
            child.leaveSelf();
        else
            this.children.set(name, child);
        return child;
    }
    leave(name) {
        const child = this.children.get(name);
        this.children.delete(name);
        child?.leaveSelf();
    }
    leaveSelf() {
        if (this.left)
            return;
        this.left = true;
        this.effects.constRetry = undefined;
        for (const name of [...this.children.keys()])
            this.leave(name);
        const hooks = this.hooks;
        this.hooks = [];
        hooks.forEach(run);
        this.drop();
    }
    onLeave(fn) {
        if (this.left)
            setImmediate(run, fn);
        else
            this.hooks.push(fn);
    }
    async call(method, options = {}) {
        const params = { ...options };
        if (this.eventId !== null)
            params.eventId = this.eventId;
        const callback = options.callback;
        if (typeof callback !== 'function')
            return this.shared.host.call(method, params);
        const id = this.shared.callbacks.add((...args) => {
            this.callbacks.delete(id);
            return callback(...args);
        });
        this.callbacks.add(id);
        params.callback = id;
        try {
            return await this.shared.host.call(method, params);
        }
        catch (e) {
            this.callbacks.delete(id);
            this.shared.callbacks.drop([id]);
            throw e;
        }
    }
    clearCallbacks(options) {
        const { callbacks } = this.shared;
        const kept = new Set('except' in options ? options.except : []);
        const only = 'only' in options ? options.only : callbacks.ids().filter(id => !kept.has(id));
        callbacks.drop(only);
        for (const id of only)
            this.callbacks.delete(id);
        return this.call('clear-callbacks', { ...options });
    }
    drop() {
        const only = this.shared.callbacks.drop(this.callbacks);
        this.callbacks.clear();
        if (only.length === 0)
            return;
        this.shared.host.call('clear-callbacks', { only }).catch(e => console.error('clear callbacks:', e));
    }
}
exports.Context = Context;
function run(hook) {
    void (async () => hook())().catch(e => console.error('leaving a context:', e));
}
},
'./effects'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.METHODS = void 0;
exports.effectsOf = effectsOf;
exports.METHODS = [
    'action.clear',
    'action.clear-tasks',
    'action.create-task',
    'action.export',
    'action.get-input',
    'action.run',
    'bind',
    'bind-range',
    'check-dependencies',
    'clear-bindings',
    'clear-service-interfaces',
    'echo',
    'export-range-service-interface',
    'export-service-interface',
    'get-container-ip',
    'get-data-version',
    'get-dependencies',
    'get-host-info',
    'get-installed-packages',
    'get-os-ip',
    'get-outbound-gateway',
    'get-service-interface',
    'get-service-manifest',
    'get-service-port-forward',
    'get-ssl-certificate',
    'get-ssl-key',
    'get-status',
    'get-system-smtp',
    'git-info',
    'list-service-interfaces',
    'mount',
    'notification.create',
    'plugin.url.clear-urls',
    'plugin.url.export-url',
    'plugin.url.register',
    'rebuild',
    'restart',
    'set-backup-progress',
    'set-data-version',
    'set-dependencies',
    'set-health',
    'set-init-progress',
    'set-main-status',
    'shutdown',
    'subcontainer.create-fs',
    'subcontainer.destroy-fs',
];
function effectsOf(context) {
    const effects = {
        eventId: context.eventId,
        constRetry: undefined,
        get isInContext() {
            return !context.left;
        },
        child: name => context.enter(name).effects,
        onLeaveContext: fn => context.onLeave(fn),
        clearCallbacks: options => context.clearCallbacks(options),
    };
    for (const method of exports.METHODS) {
        const path = method.split('.').map(camel);
        const name = path.pop();
        let at = effects;
        for (const part of path)
            at = (at[part] ??= {});
        at[name] = (options) => context.call(method, options);
    }
    return effects;
}
function camel(name) {
    return name.replace(/-([a-z])/g, (_, c) => c.toUpperCase());
}
},
'./exver'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.VersionRange = exports.ExtendedVersion = exports.Version = void 0;
exports.parseTarget = parseTarget;
class Version {
    number;
    prerelease;
    constructor(number, prerelease = []) {
        this.number = number;
        this.prerelease = prerelease;
    }
    static parse(text) {
        const m = /^(\d+(?:\.\d+)*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$/.exec(text);
        if (!m)
            throw new Error(`invalid version ${JSON.stringify(text)}`);
        const prerelease = m[2]?.split('.').map(s => (/^\d+$/.test(s) ? Number(s) : s)) ?? [];
        return new Version(m[1].split('.').map(Number), prerelease);
    }
    toString() {
        return this.number.join('.') + (this.prerelease.length ? '-' + this.prerelease.join('.') : '');
    }
    compareForSort(other) {
        for (let i = 0; i < Math.max(this.number.length, other.number.length); i++) {
            const order = sign((this.number[i] ?? 0) - (other.number[i] ?? 0));
            if (order)
                return order;
        }
        const [a, b] = [this.prerelease, other.prerelease];
        if (!a.length || !b.length)
            return sign((a.length ? 0 : 1) - (b.length ? 0 : 1));
        for (let i = 0; i < Math.min(a.length, b.length); i++) {
            const order = compareSegments(a[i], b[i]);
            if (order)
                return order;
        }
        return sign(a.length - b.length);
    }
    compare(other) {
        return named(this.compareForSort(other));
    }
    satisfies(range) {
        return new ExtendedVersion(null, this, new Version([0])).satisfies(range);
    }
}
exports.Version = Version;
function sign(n) {
    return n < 0 ? -1 : n > 0 ? 1 : 0;
}
function named(order) {
    return order < 0 ? 'less' : order > 0 ? 'greater' : 'equal';
}
function compareSegments(a, b) {
    if (typeof a === 'number' && typeof b === 'number')
        return sign(a - b);
    if (typeof a === 'number')
        return -1;
    if (typeof b === 'number')
        return 1;
    return a < b ? -1 : a > b ? 1 : 0;
}
class ExtendedVersion {
    flavor;
    upstream;
    downstream;
    constructor(flavor, upstream, downstream) {
        this.flavor = flavor;
        this.upstream = upstream;
        this.downstream = downstream;
    }
    static parse(text) {
        const m = /^(?:#([a-z]*):)?([^:]*):([^:]*)$/.exec(text);
        if (!m)
            throw new Error(`invalid version ${JSON.stringify(text)}: want [#flavor:]upstream:downstream`);
        return new ExtendedVersion(m[1] || null, Version.parse(m[2]), Version.parse(m[3]));
    }
    toString() {
        return `${this.flavor ? `#${this.flavor}:` : ''}${this.upstream}:${this.downstream}`;
    }
    compare(other) {
        return this.flavor === other.flavor ? named(this.order(other)) : null;
    }
    compareLexicographic(other) {
        return named(this.compareForSort(other));
    }
    compareForSort(other) {
        return compareSegments(this.flavor ?? '', other.flavor ?? '') || this.order(other);
    }
    order(other) {
        return this.upstream.compareForSort(other.upstream) || this.downstream.compareForSort(other.downstream);
    }
    equals(other) {
        return this.compare(other) === 'equal';
    }
    greaterThan(other) {
        return this.compare(other) === 'greater';
    }
    greaterThanOrEqual(other) {
        return this.greaterThan(other) || this.equals(other);
    }
    lessThan(other) {
        return this.compare(other) === 'less';
    }
    lessThanOrEqual(other) {
        return this.lessThan(other) || this.equals(other);
    }
    incrementMajor() {
        return this.raised(0);
    }
    incrementMinor() {
        return this.raised(1);
    }
    raised(after) {
        const { number, prerelease } = this.upstream;
        let length = number.length;
        while (length > 1 && number[length - 1] === 0)
            length--;
        const first = number.slice(0, length).findIndex(n => n !== 0);
        const at = (first < 0 ? length - 1 : first) + after;
        const upper = Array.from({ length: at + 1 }, (_, i) => number[i] ?? 0);
        upper[at]++;
        return new ExtendedVersion(this.flavor, new Version(upper, prerelease), new Version([0]));
    }
    satisfies(range) {
        const { atom } = range;
        switch (atom.type) {
            case 'Any':
                return true;
            case 'None':
                return false;
            case 'Flavor':
                return atom.flavor === this.flavor;
            case 'Not':
                return !this.satisfies(atom.value);
            case 'And':
                return this.satisfies(atom.left) && this.satisfies(atom.right);
            case 'Or':
                return this.satisfies(atom.left) || this.satisfies(atom.right);
        }
        const { operator, version } = atom;
        switch (operator) {
            case '=':
                return this.equals(version);
            case '!=':
                return !this.equals(version);
            case '<':
                return this.lessThan(version);
            case '<=':
                return this.lessThanOrEqual(version);
            case '>':
                return this.greaterThan(version);
            case '>=':
                return this.greaterThanOrEqual(version);
            case '^':
                return this.greaterThanOrEqual(version) && this.lessThan(version.incrementMajor());
            case '~':
                return this.greaterThanOrEqual(version) && this.lessThan(version.incrementMinor());
        }
    }
}
exports.ExtendedVersion = ExtendedVersion;
class VersionRange {
    atom;
    constructor(atom) {
        this.atom = atom;
    }
    static parse(text) {
        return new RangeParser(text).parse();
    }
    static any() {
        return new VersionRange({ type: 'Any' });
    }
    static none() {
        return new VersionRange({ type: 'None' });
    }
    static anchor(operator, version) {
        return new VersionRange({ type: 'Anchor', operator, version });
    }
    static flavor(flavor) {
        return new VersionRange({ type: 'Flavor', flavor });
    }
    and(right) {
        return new VersionRange({ type: 'And', left: this, right });
    }
    or(right) {
        return new VersionRange({ type: 'Or', left: this, right });
    }
    not() {
        return new VersionRange({ type: 'Not', value: this });
    }
    satisfiedBy(version) {
        return version.satisfies(this);
    }
    satisfiable() {
        return cells(this.tables()).some(([, table]) => table.values.includes(true));
    }
    intersects(other) {
        return this.and(other).satisfiable();
    }
    equals(other) {
        const differ = zipTables(this.tables(), other.tables(), (a, b) => a !== b);
        return !cells(differ).some(([, table]) => table.values.includes(true));
    }
    normalize() {
        const terms = [];
        let all = true;
        for (const [flavor, table] of cells(this.tables())) {
            all &&= !table.values.includes(false);
            table.values.forEach((value, i) => {
                if (value)
                    terms.push(span(flavor, table.points[i - 1], table.points[i]));
            });
        }
        if (all)
            return VersionRange.any();
        return terms.length ? terms.reduce((a, b) => a.or(b)) : VersionRange.none();
    }
    tables() {
        const { atom } = this;
        switch (atom.type) {
            case 'Any':
                return true;
            case 'None':
                return false;
            case 'Flavor':
                return within(atom.flavor, { points: [], values: [true] });
            case 'Not':
                return zipTables(atom.value.tables(), true, a => !a);
            case 'And':
                return zipTables(atom.left.tables(), atom.right.tables(), (a, b) => a && b);
            case 'Or':
                return zipTables(atom.left.tables(), atom.right.tables(), (a, b) => a || b);
        }
        const { operator, version } = atom;
        const below = point(version, -1);
        const above = point(version, 1);
        const table = (points, ...values) => within(version.flavor, { points, values });
        switch (operator) {
            case '=':
                return table([below, above], false, true, false);
            case '!=':
                return zipTables(table([below, above], false, true, false), true, a => !a);
            case '<':
                return table([below], true, false);
            case '<=':
                return table([above], true, false);
            case '>':
                return table([above], false, true);
            case '>=':
                return table([below], false, true);
            case '^':
                return table([below, point(version.incrementMajor(), -1)], false, true, false);
            case '~':
                return table([below, point(version.incrementMinor(), -1)], false, true, false);
        }
    }
    toString() {
        const { atom } = this;
        switch (atom.type) {
            case 'Any':
                return '*';
            case 'None':
                return '!';
            case 'Flavor':
                return `#${atom.flavor ?? ''}`;
            case 'Anchor':
                return `${atom.operator}${atom.version}`;
            case 'Not':
                return `!${atom.value.toStringParens('Not')}`;
            case 'And':
            case 'Or':
                return [atom.left, atom.right].map(r => r.toStringParens(atom.type)).join(atom.type === 'And' ? ' && ' : ' || ');
        }
    }
    toStringParens(parent) {
        const { type } = this.atom;
        const bare = type === 'Flavor' || type === 'Not' || type === parent || (parent !== 'Not' && type !== 'And' && type !== 'Or');
        return bare ? this.toString() : `(${this})`;
    }
}
exports.VersionRange = VersionRange;
function point(version, side) {
    return { upstream: version.upstream, downstream: version.downstream, side };
}
function within(flavor, table) {
    return new Map([
        [{ type: 'Flavor', flavor }, table],
        [
            { type: 'FlavorNot', flavors: new Set([flavor]) },
            { points: [], values: [false] },
        ],
    ]);
}
function cells(tables) {
    if (typeof tables !== 'boolean')
        return [...tables];
    return [
        [
            { type: 'FlavorNot', flavors: new Set() },
            { points: [], values: [tables] },
        ],
    ];
}
function zipTables(a, b, combine) {
    if (typeof a === 'boolean' && typeof b === 'boolean')
        return combine(a, b);
    const out = new Map();
    for (const [flavorA, tableA] of cells(a)) {
        for (const [flavorB, tableB] of cells(b)) {
            const flavor = meet(flavorA, flavorB);
            if (flavor)
                out.set(flavor, zip(tableA, tableB, combine));
        }
    }
    return out;
}
function meet(a, b) {
    if (a.type === 'FlavorNot' && b.type === 'FlavorNot') {
        return { type: 'FlavorNot', flavors: new Set([...a.flavors, ...b.flavors]) };
    }
    if (a.type === 'FlavorNot')
        return meet(b, a);
    const both = b.type === 'Flavor' ? a.flavor === b.flavor : !b.flavors.has(a.flavor);
    return both ? { type: 'Flavor', flavor: a.flavor } : null;
}
function zip(a, b, combine) {
    const out = { points: [], values: [combine(a.values[0], b.values[0])] };
    let i = 0;
    let j = 0;
    while (i < a.points.length || j < b.points.length) {
        const p = a.points[i];
        const q = b.points[j];
        const order = !p ? 1 : !q ? -1 : comparePoints(p, q);
        if (order <= 0)
            i++;
        if (order >= 0)
            j++;
        const value = combine(a.values[i], b.values[j]);
        if (value !== out.values[out.values.length - 1]) {
            out.points.push(order <= 0 ? p : q);
            out.values.push(value);
        }
    }
    return out;
}
function comparePoints(a, b) {
    return (a.upstream.compareForSort(b.upstream) || a.downstream.compareForSort(b.downstream) || sign(a.side - b.side));
}
function span(flavor, from, to) {
    if (flavor.type === 'FlavorNot') {
        const others = [...flavor.flavors].map(f => VersionRange.flavor(f).not());
        return others.length ? others.reduce((a, b) => a.and(b)) : VersionRange.any();
    }
    const at = (p) => new ExtendedVersion(flavor.flavor, p.upstream, p.downstream);
    if (from && to && from.side < to.side && at(from).equals(at(to)))
        return VersionRange.anchor('=', at(from));
    const ends = [];
    if (from)
        ends.push(VersionRange.anchor(from.side < 0 ? '>=' : '>', at(from)));
    if (to)
        ends.push(VersionRange.anchor(to.side < 0 ? '<' : '<=', at(to)));
    return ends.length ? ends.reduce((a, b) => a.and(b)) : VersionRange.flavor(flavor.flavor);
}
class RangeParser {
    text;
    at = 0;
    constructor(text) {
        this.text = text;
    }
    parse() {
        const range = this.sequence();
        if (this.at < this.text.length)
            this.fail();
        return range;
    }
    sequence() {
        let range = this.atom();
        let join = '&&';
        for (;;) {
            this.blank();
            if (this.at >= this.text.length || this.text[this.at] === ')')
                return range;
            join = this.take(/&&|\|\|/y)?.[0] ?? join;
            const next = this.atom();
            range = join === '||' ? range.or(next) : range.and(next);
        }
    }
    atom() {
        this.blank();
        if (this.take(/\(/y)) {
            const inner = this.sequence();
            if (!this.take(/\)/y))
                this.fail();
            return inner;
        }
        if (this.take(/\*/y))
            return VersionRange.any();
        if (this.take(/!(?!=)/y)) {
            this.blank();
            return /^(?:$|\)|&&|\|\|)/.test(this.text.slice(this.at)) ? VersionRange.none() : this.atom().not();
        }
        const flavor = this.take(/#([a-z]*)(?![a-z:])/y);
        if (flavor)
            return VersionRange.flavor(flavor[1] || null);
        const anchor = this.take(/(>=|<=|!=|[=<>^~])?[ \t\r\n]*(?:#([a-z]*):)?([0-9][0-9A-Za-z.-]*)(?::([0-9][0-9A-Za-z.-]*))?/y);
        if (!anchor)
            return this.fail();
        const version = new ExtendedVersion(anchor[2] || null, Version.parse(anchor[3]), Version.parse(anchor[4] ?? '0'));
        const operator = anchor[1] ?? '^';
        if (operator === '^' || operator === '~') {
            const upper = operator === '^' ? version.incrementMajor() : version.incrementMinor();
            return VersionRange.anchor('>=', version).and(VersionRange.anchor('<', upper));
        }
        return VersionRange.anchor(operator, version);
    }
    blank() {
        this.take(/[ \t\r\n]*/y);
    }
    take(pattern) {
        pattern.lastIndex = this.at;
        const found = pattern.exec(this.text);
        if (found)
            this.at = pattern.lastIndex;
        return found;
    }
    fail() {
        throw new Error(`invalid version range ${JSON.stringify(this.text)} at character ${this.at + 1}`);
    }
}
function parseTarget(target) {
    if (target === null)
        return null;
    if (typeof target !== 'string')
        throw new Error('exit: target must be a string or null');
    try {
        return ExtendedVersion.parse(target);
    }
    catch {
        return VersionRange.parse(target);
    }
}
},
'./host'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.HostClient = exports.HostError = void 0;
const node_crypto_1 = require("node:crypto");
const net = require("node:net");
const lines_1 = require("./lines");
const PATIENCE = 10 * 60_000;
const FIRST_PAUSE = 10;
const LONGEST_PAUSE = 1000;
const WIDTH = 64;
const A_WHILE = 50;
class HostError extends Error {
    code;
    data;
    constructor(method, error) {
        super(`${describe(error)}@${method}`);
        this.code = error.code;
        this.data = error.data;
    }
}
exports.HostError = HostError;
function describe(error) {
    const { message, data } = error;
    if (typeof data === 'string')
        return `${message}: ${data}`;
    if (typeof data !== 'object' || data === null)
        return message;
    const { details, debug } = data;
    let text = message;
    if (typeof details === 'string' && details)
        text += `: ${details}`;
    if (typeof debug === 'string' && debug)
        text += `\n${debug}`;
    return text;
}
class Interrupted extends Error {
    sent;
    constructor(message, sent) {
        super(message);
        this.sent = sent;
    }
}
class HostClient {
    path;
    patience;
    lastId = 0;
    away = null;
    underWay = 0;
    queue = [];
    constructor(path, patience = PATIENCE) {
        this.path = path;
        this.patience = patience;
    }
    async call(method, params) {
        const id = ++this.lastId;
        const request = { id, method, params, callId: (0, node_crypto_1.randomUUID)() };
        let text = JSON.stringify(request) + '\n';
        let since = 0;
        for (;;) {
            await this.away;
            try {
                return read(method, await this.inTurn(text));
            }
            catch (e) {
                if (!(e instanceof Interrupted))
                    throw e;
                const now = Date.now();
                since ||= now;
                if (now - since > this.patience)
                    throw new Error(`${e.message}@${method}`);
                if (e.sent)
                    text = JSON.stringify({ ...request, repeat: true }) + '\n';
            }
            this.away ??= this.comeback().finally(() => (this.away = null));
        }
    }
    async comeback() {
        const until = Date.now() + this.patience;
        for (let pause = FIRST_PAUSE; Date.now() <= until; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
            await new Promise(resolve => setTimeout(resolve, pause));
            if (await listens(this.path))
                return;
        }
    }
    async inTurn(request) {
        if (this.underWay < WIDTH)
            this.underWay++;
        else
            await new Promise(resolve => this.queue.push(resolve));
        let held = true;
        const leave = () => {
            if (!held)
                return;
            held = false;
            const next = this.queue.shift();
            if (next)
                next();
            else
                this.underWay--;
        };
        const timer = setTimeout(leave, A_WHILE);
        try {
            return await this.exchange(request);
        }
        finally {
            clearTimeout(timer);
            leave();
        }
    }
    exchange(request) {
        return new Promise((resolve, reject) => {
            const reader = new lines_1.LineReader();
            let problem = 'the host closed the connection';
            let sent = false;
            const socket = net.connect(this.path);
            socket.on('connect', () => {
                sent = true;
                socket.write(request);
            });
            socket.on('data', chunk => {
                const [line] = reader.feed(chunk);
                if (line === undefined)
                    return;
                resolve(line);
                socket.destroy();
            });
            socket.on('end', () => {
                const rest = reader.rest();
                if (rest && isJson(rest))
                    resolve(rest);
            });
            socket.on('error', e => {
                problem = e.message;
            });
            socket.on('close', () => reject(new Interrupted(problem, sent)));
        });
    }
}
exports.HostClient = HostClient;
function listens(path) {
    return new Promise(resolve => {
        const socket = net.connect(path);
        socket.on('connect', () => {
            resolve(true);
            socket.destroy();
        });
        socket.on('error', () => resolve(false));
    });
}
function isJson(text) {
    try {
        JSON.parse(text);
        return true;
    }
    catch {
        return false;
    }
}
function read(method, line) {
    const answer = isJson(line) ? JSON.parse(line) : null;
    if (typeof answer === 'object' && answer !== null) {
        if ('error' in answer && answer.error) {
            const e = answer.error;
            if (typeof e.code === 'number' && typeof e.message === 'string') {
                throw new HostError(method, { code: e.code, message: e.message, data: e.data });
            }
        }
        else if ('result' in answer) {
            return answer.result;
        }
    }
    throw new Error(`malformed answer of the host: ${line.slice(0, 200)}@${method}`);
}
},
'./index'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.run = run;
exports.main = main;
const path = require("node:path");
const host_1 = require("./host");
const runtime_1 = require("./runtime");
const service_1 = require("./service");
const PACKAGE = '/usr/lib/startos/package';
const RPC = '/media/startos/rpc';
async function run(folder, rpc, exit) {
    const host = new host_1.HostClient(path.join(rpc, 'host.sock'));
    const runtime = new runtime_1.Runtime(folder, host, () => exit(0));
    return { runtime, server: await (0, service_1.serve)(path.join(rpc, 'service.sock'), runtime) };
}
async function main(folder = PACKAGE, rpc = RPC) {
    process.on('unhandledRejection', e => console.error('unhandled rejection:', e));
    const { runtime } = await run(folder, rpc, code => process.exit(code));
    let ending = false;
    for (const signal of ['SIGTERM', 'SIGINT']) {
        process.on(signal, () => {
            if (ending)
                return;
            ending = true;
            void runtime.shutdown().then(() => process.exit(0));
        });
    }
}
if (require.main === module) {
    main().catch(e => {
        console.error(e);
        process.exit(1);
    });
}
},
'./lines'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.LineReader = void 0;
class LineReader {
    parts = [];
    feed(chunk) {
        const lines = [];
        let start = 0;
        for (;;) {
            const end = chunk.indexOf(0x0a, start);
            if (end < 0)
                break;
            this.parts.push(chunk.subarray(start, end));
            const line = (this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts)).toString('utf8').trim();
            this.parts = [];
            if (line)
                lines.push(line);
            start = end + 1;
        }
        if (start < chunk.length)
            this.parts.push(chunk.subarray(start));
        return lines;
    }
    rest() {
        const rest = Buffer.concat(this.parts).toString('utf8').trim();
        this.parts = [];
        return rest;
    }
}
exports.LineReader = LineReader;
},
'./rpc'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.Refused = exports.RpcError = void 0;
exports.details = details;
exports.thrownError = thrownError;
exports.procedureError = procedureError;
class RpcError extends Error {
    code;
    data;
    constructor(code, message, data) {
        super(message);
        this.code = code;
        this.data = data;
    }
}
exports.RpcError = RpcError;
function details(thrown) {
    return {
        details: String(thrown),
        debug: thrown instanceof Error && thrown.stack ? thrown.stack : null,
    };
}
function thrownError(code, thrown) {
    if (thrown instanceof RpcError)
        return wire(thrown);
    return { code, message: typeof thrown, data: details(thrown) };
}
function procedureError(thrown) {
    if (thrown instanceof Refused)
        return thrownError(1, thrown.cause);
    if (thrown instanceof RpcError)
        return wire(thrown);
    if (typeof thrown === 'object' && thrown !== null && 'error' in thrown && typeof thrown.error === 'string') {
        const code = 'code' in thrown && typeof thrown.code === 'number' ? thrown.code : 0;
        return { code, message: thrown.error };
    }
    return { code: 0, message: String(thrown) };
}
function wire(e) {
    return { code: e.code, message: e.message, data: e.data };
}
class Refused extends Error {
    constructor(why) {
        super(String(why), { cause: why });
    }
}
exports.Refused = Refused;
},
'./runtime'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.Runtime = void 0;
const bundle_1 = require("./bundle");
const callbacks_1 = require("./callbacks");
const context_1 = require("./context");
const exver_1 = require("./exver");
const rpc_1 = require("./rpc");
const KINDS = ['install', 'update', 'restore', null];
const ACTION = /^\/actions\/([^/]+)\/(getInput|run)$/;
const IDLE = ['/packageInit', '/packageUninit', '/backup/restore'];
const NAMED = 64;
class Runtime {
    folder;
    onExit;
    callbacks = new callbacks_1.Callbacks();
    root;
    bundle = null;
    initialising = null;
    initialised = false;
    main = null;
    stopping = null;
    latest = new Map();
    runs = 0;
    named = new Map();
    exiting = null;
    constructor(folder, host, onExit) {
        this.folder = folder;
        this.onExit = onExit;
        this.root = new context_1.Context({ host, callbacks: this.callbacks }, null);
    }
    init(params) {
        const { id, kind } = object(params);
        if (typeof id !== 'string')
            throw new rpc_1.Refused(new Error('init: id must be a string'));
        if (!KINDS.includes(kind))
            throw new rpc_1.Refused(new Error('init: kind must be install, update, restore or null'));
        if (!this.initialising) {
            this.initialising = this.initialise(id, kind);
            this.initialising.then(() => (this.initialised = true), () => {
                this.initialising = null;
                this.root.leave('init');
            });
        }
        return this.initialising;
    }
    async initialise(eventId, kind) {
        this.bundle ??= (0, bundle_1.loadBundle)(this.folder);
        await this.bundle.init({ effects: this.root.enter('init', eventId).effects, kind });
    }
    async start() {
        while (this.stopping)
            await this.stopping.catch(() => { });
        if (!this.main) {
            const bundle = this.initialisedBundle();
            const context = this.root.enter('main');
            const { effects } = context;
            let asked = false;
            effects.constRetry = () => {
                if (asked || context.left)
                    return;
                asked = true;
                effects.restart().catch(e => console.error('restart:', e));
            };
            const main = { context, running: build(bundle, effects) };
            this.main = main;
            main.running.catch(() => {
                context.leaveSelf();
                if (this.main === main && !this.stopping)
                    this.main = null;
            });
        }
        await this.main.running;
    }
    stop() {
        this.stopping ??= this.terminate().finally(() => (this.stopping = null));
        return this.stopping;
    }
    async terminate() {
        const main = this.main;
        if (!main)
            return;
        try {
            this.root.leave('main');
            const running = await main.running.catch(() => null);
            await running?.term();
        }
        finally {
            this.main = null;
        }
    }
    async exit(params) {
        const { id, target } = object(params);
        if (typeof id !== 'string')
            throw new rpc_1.Refused(new Error('exit: id must be a string'));
        let parsed;
        try {
            parsed = (0, exver_1.parseTarget)(target ?? null);
        }
        catch (e) {
            throw new rpc_1.Refused(e);
        }
        const name = String(target ?? null);
        const before = this.exiting;
        if (before?.target === name)
            return before.done;
        const leave = async () => {
            await before?.done.catch(() => { });
            await this.stop();
            const bundle = (this.bundle ??= (0, bundle_1.loadBundle)(this.folder));
            const context = this.root.enter('exit', id);
            try {
                await bundle.uninit({ effects: context.effects, target: parsed });
            }
            finally {
                this.root.leave('exit');
            }
        };
        const mine = { target: name, done: leave() };
        this.exiting = mine;
        mine.done.catch(() => {
            if (this.exiting === mine)
                this.exiting = null;
        });
        return mine.done;
    }
    exited() {
        this.onExit();
    }
    async shutdown() {
        await this.stop().catch(e => console.error('stop:', e));
        this.root.leaveSelf();
    }
    async execute(params) {
        const { id, procedure, input, callId } = object(params);
        if (typeof id !== 'string')
            throw new rpc_1.Refused(new Error('execute: id must be a string'));
        const action = typeof procedure === 'string' ? ACTION.exec(procedure) : null;
        if (!action && procedure !== '/backup/create' && !IDLE.includes(procedure)) {
            throw new rpc_1.Refused(new Error(`execute: unknown procedure ${JSON.stringify(procedure)}`));
        }
        let bundle;
        try {
            bundle = this.initialisedBundle();
        }
        catch (e) {
            throw new rpc_1.Refused(e);
        }
        const name = typeof callId === 'string' && callId !== '' ? callId : null;
        const known = name !== null && this.named.get(name);
        if (known)
            return known;
        const run = this.inContext(procedure, id, async (effects) => {
            if (procedure === '/backup/create') {
                if (!bundle.createBackup)
                    throw new Error('the package has no createBackup');
                return bundle.createBackup({ effects });
            }
            if (!action)
                return null;
            const [, name, what] = action;
            const found = bundle.actions?.get(name);
            if (!found)
                throw new Error(`action ${name} not found`);
            const given = typeof input === 'object' && input !== null ? input : {};
            if (what === 'getInput')
                return found.getInput({ effects, prefill: given.prefill ?? null });
            return found.run({ effects, input: given.input });
        });
        if (name !== null) {
            this.named.set(name, run);
            if (this.named.size > NAMED)
                this.named.delete(this.named.keys().next().value);
        }
        return run;
    }
    async inContext(procedure, id, run) {
        const earlier = this.latest.get(procedure);
        if (earlier && !earlier.busy)
            this.root.leave(earlier.name);
        const mine = { name: `${procedure}#${++this.runs}`, busy: true };
        this.latest.set(procedure, mine);
        try {
            return await run(this.root.enter(mine.name, id).effects);
        }
        finally {
            mine.busy = false;
            if (this.latest.get(procedure) !== mine)
                this.root.leave(mine.name);
        }
    }
    callback(params) {
        const { id, args } = object(params);
        if (typeof id !== 'number')
            throw new rpc_1.Refused(new Error('callback: id must be a number'));
        this.callbacks.fire(id, Array.isArray(args) ? args : []);
    }
    status() {
        return {
            protocol: 2,
            initialized: this.initialised,
            started: this.main !== null && !this.stopping,
            callbacks: this.callbacks.ids(),
        };
    }
    initialisedBundle() {
        if (!this.initialised || !this.bundle)
            throw new Error('System not initialized');
        return this.bundle;
    }
}
exports.Runtime = Runtime;
async function build(bundle, effects) {
    const chain = await bundle.main({ effects });
    return chain.build();
}
function object(params) {
    if (typeof params !== 'object' || params === null || Array.isArray(params)) {
        throw new rpc_1.Refused(new Error('params must be an object'));
    }
    return params;
}
},
'./service'(exports, require) {
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.serve = serve;
const fs = require("node:fs");
const net = require("node:net");
const lines_1 = require("./lines");
const rpc_1 = require("./rpc");
function serve(path, methods) {
    fs.rmSync(path, { force: true });
    const server = net.createServer({ allowHalfOpen: true }, socket => accept(socket, methods));
    return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, () => {
            server.off('error', reject);
            server.on('error', e => console.error('service socket:', e));
            resolve(server);
        });
    });
}
function accept(socket, methods) {
    const reader = new lines_1.LineReader();
    let running = 0;
    let ended = false;
    const finish = () => {
        if (ended && running === 0)
            socket.end();
    };
    const take = (line) => {
        running++;
        void answer(line, methods).then(reply => {
            running--;
            const done = () => {
                if (reply.last)
                    methods.exited();
            };
            if (reply.text)
                socket.write(reply.text + '\n', done);
            else
                done();
            finish();
        });
    };
    socket.on('data', chunk => reader.feed(chunk).forEach(take));
    socket.on('end', () => {
        const rest = reader.rest();
        ended = true;
        if (rest)
            take(rest);
        finish();
    });
    socket.on('error', () => socket.destroy());
}
async function answer(line, methods) {
    let id = null;
    let method = '';
    let result;
    let error;
    try {
        const request = parse(line);
        id = request.id;
        method = request.method;
        result = await dispatch(method, request.params, methods);
        if (method === 'callback')
            return { text: null, last: false };
    }
    catch (e) {
        error = shape(method, e);
    }
    const last = method === 'exit' && !error;
    if (id === undefined) {
        if (error)
            console.error(`notification ${method}:`, error);
        return { text: null, last };
    }
    let text;
    try {
        text = JSON.stringify(error ? { jsonrpc: '2.0', id, error } : { jsonrpc: '2.0', id, result: result ?? null });
    }
    catch (e) {
        error = (0, rpc_1.thrownError)(0, e);
        text = JSON.stringify({ jsonrpc: '2.0', id, error });
    }
    return { text, last };
}
function parse(line) {
    let request;
    try {
        request = JSON.parse(line);
    }
    catch (e) {
        throw new rpc_1.Refused(e);
    }
    if (typeof request !== 'object' || request === null || Array.isArray(request)) {
        throw new rpc_1.Refused(new Error('a request must be an object'));
    }
    const { id, method, params } = request;
    if (id !== undefined && id !== null && typeof id !== 'string' && typeof id !== 'number') {
        throw new rpc_1.Refused(new Error('the id must be a string, a number or null'));
    }
    return { id, method: method, params };
}
async function dispatch(method, params, methods) {
    switch (method) {
        case 'init':
            return methods.init(params);
        case 'start':
            return methods.start();
        case 'stop':
            return methods.stop();
        case 'exit':
            return methods.exit(params);
        case 'execute':
        case 'sandbox':
            return methods.execute(params);
        case 'callback':
            return methods.callback(params);
        case 'selfstead.status':
            return methods.status();
    }
    if (typeof method !== 'string') {
        throw new rpc_1.RpcError(-32602, 'Invalid params', { details: 'the method is missing', debug: null });
    }
    throw new rpc_1.RpcError(-32601, 'Method not found', { details: method, debug: null });
}
function shape(method, thrown) {
    if (thrown instanceof rpc_1.Refused)
        return (0, rpc_1.thrownError)(1, thrown.cause);
    return method === 'execute' || method === 'sandbox' ? (0, rpc_1.procedureError)(thrown) : (0, rpc_1.thrownError)(0, thrown);
}
},
};
module.exports = Object.fromEntries(Object.keys(modules).map(name => [name.slice(2), load(name)]));
