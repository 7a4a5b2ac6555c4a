import * as assert from 'node:assert/strict'
import { fails, like, ok, partly, type Row, type World } from './row'

// The kinds of errors (StartOS error kinds, JSON-RPC codes below zero).
const NOT_FOUND = 6
const INVALID_ID = 30
const ACTION = 36
const INVALID_REQUEST = 38
const FILESYSTEM = 2
const NETWORK = 9
const BAD_PARAMS = -32602
const UNKNOWN = -32601

const PEER = 'conformance-peer'
const SELF = 'conformance-probe'
const string = (got: unknown) => assert.equal(typeof got, 'string')
const matches = (pattern: RegExp) => (got: unknown) => assert.match(String(got), pattern)
const pems = (got: any) => {
  assert.equal(got.length, 3)
  for (const pem of got) assert.match(pem, /^-----BEGIN CERTIFICATE-----\n/)
}
const metadata = { name: 'Raw', description: 'By hand', warning: null, visibility: 'enabled', allowedStatuses: 'any', hasInput: false, group: null }
const web = { id: 'raw', internalPort: 9000, preferredExternalPort: 19000, addSsl: null, secure: null }
const face = {
  id: 'raw-page',
  name: 'Raw page',
  description: 'By hand',
  masked: true,
  addressInfo: { username: 'u', hostId: 'raw', internalPort: 9000, scheme: 'http', sslScheme: null, suffix: '/x?a=b' },
  type: 'api',
}
const task = { replayId: 'raw', packageId: PEER, actionId: 'configure', severity: 'important' }
const when = { condition: 'input-not-matches', once: false }
const partial = (...accept: object[]) => ({ kind: 'partial', accept, set: accept[0] })
const running = { kind: 'running', id: PEER, healthChecks: ['page'], versionRange: '>=2.0.0:0' }
const exists = { kind: 'exists', id: 'not-there', versionRange: '*' }
const target = { packageId: PEER, volumeId: 'main', subpath: null, readonly: true, idmap: [] }
const url = { packageId: PEER, hostId: 'web', internalPort: 8081, ssl: false, public: true, hostname: 'probe.onion', port: 80, info: { k: 1 } }
const pluginURLs = (host: any) => host.bindings['8081'].addresses.available.filter((a: any) => a.metadata.kind === 'plugin')
/** The state of the task `raw`, as check-dependencies tells it. */
const taskState = (state: boolean | undefined): Row =>
  ok('check-dependencies', { packageIds: [PEER] }, ([got]: any) => assert.equal(got.tasks.raw?.active, state), { note: `says the task is ${state}` })
const form = (name: string, size: number): Row =>
  ok('action.run', { packageId: PEER, actionId: 'configure', input: { name, size } }, (got: any) => assert.equal(got.result.value, JSON.stringify({ name, size })))

/** Every effect, each result and each refusal; one line each. */
export const rows: Row[] = [
  ok('echo', { message: 'grüße 🌍' }, 'grüße 🌍'),
  ok('echo', { message: '', eventId: 'x', stack: 'at y' }, ''),
  fails('echo', {}, BAD_PARAMS),
  fails('echo', { message: 1 }, BAD_PARAMS),
  fails('echo', ['a'], BAD_PARAMS),
  fails('echo', 'a', BAD_PARAMS),
  ok('git-info', {}, string),

  // Commands of the container's own program, and what never was an effect.
  ...['bind-mount', 'pipe-wrap', 'subcontainer.launch', 'subcontainer.launch-init', 'subcontainer.exec', 'subcontainer.exec-command', 'package.install', 'db.dump', '', 'Echo'].map(m =>
    fails(m, {}, UNKNOWN, undefined, { once: true }),
  ),

  ok('set-data-version', { version: '0.9.0:0' }),
  ok('get-data-version', {}, '0.9.0:0'),
  ok('set-data-version', { version: '>=0.8.0:0 && <1.0.0:0' }),
  ok('get-data-version', {}, '>=0.8.0:0 && <1.0.0:0'),
  ok('set-data-version', { version: null }),
  ok('get-data-version', {}, null),
  ok('set-data-version', { version: '1.0.0:0' }),
  fails('set-data-version', { version: 1 }, BAD_PARAMS),

  ok('get-status', {}, (got: any) => {
    assert.deepEqual(Object.keys(got).sort(), ['desired', 'error', 'health', 'started'])
    assert.deepEqual(got.desired, { main: 'running' })
    assert.match(got.started, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/)
    assert.equal(got.error, null)
  }),
  ok('get-status', { packageId: null }, like({ desired: { main: 'running' } })),
  ok('get-status', { packageId: PEER }, like({ desired: { main: 'running' }, health: { page: { name: 'Page', result: 'success' } } })),
  ok('get-status', { packageId: 'not-there' }, null),
  fails('get-status', { packageId: '../x' }, INVALID_ID),
  fails('get-status', { callback: 'x' }, BAD_PARAMS),

  ok('set-health', { id: 'raw', name: 'Raw', result: 'starting' }),
  ok('get-status', {}, like({ health: { raw: { name: 'Raw', result: 'starting', message: null } } })),
  ok('set-health', { id: 'raw', name: 'Raw', result: 'waiting', message: null }),
  ok('set-health', { id: 'raw', name: 'Raw', result: 'disabled', message: 'off' }),
  ok('set-health', { id: 'raw', name: 'Raw', result: 'loading', message: '50 %' }),
  ok('set-health', { id: 'raw', name: 'Raw', result: 'failure', message: 'broken' }),
  ok('get-status', {}, like({ health: { raw: { name: 'Raw', result: 'failure', message: 'broken' } } })),
  fails('set-health', { id: 'raw', name: 'Raw', result: 'loading' }, BAD_PARAMS),
  fails('set-health', { id: 'raw', name: 'Raw', result: 'failure', message: null }, BAD_PARAMS),
  fails('set-health', { id: 'raw', name: 'Raw', result: 'fine' }, BAD_PARAMS),
  fails('set-health', { id: 'raw', result: 'success' }, BAD_PARAMS),
  fails('set-health', { name: 'Raw', result: 'success' }, INVALID_ID),
  fails('set-health', { id: 'Not an id', name: 'Raw', result: 'success' }, INVALID_ID),
  ok('set-health', { id: 'raw', name: 'Raw', result: 'success', message: null }),

  ok('set-main-status', { status: 'running' }),
  fails('set-main-status', { status: 'paused' }, BAD_PARAMS),
  fails('set-main-status', {}, BAD_PARAMS),

  ...[null, true, { done: 1, total: 3, units: 'steps' }, { done: 1, total: null, units: null }, { overall: { done: 1, total: 2, units: 'bytes' }, phases: [{ name: 'p', progress: true }] }].flatMap(progress => [
    ok('set-init-progress', { progress }),
    ok('set-backup-progress', { progress }),
  ]),
  ...['set-init-progress', 'set-backup-progress'].flatMap(m => [
    fails(m, { progress: 'half' }, BAD_PARAMS),
    fails(m, { progress: { done: 'x', total: 1, units: null } }, BAD_PARAMS),
    fails(m, { progress: { done: 1, total: 1, units: 'feet' } }, BAD_PARAMS),
  ]),

  ok('notification.create', { level: 'info', title: 'Raw', message: 'plain' }),
  ok('notification.create', { level: 'success', title: 'Raw', message: 'with text', data: '# Markdown' }),
  ok('notification.create', { level: 'warning', title: 'Raw', message: 'w', data: null }, null, { once: true }),
  ok('notification.create', { level: 'error', title: 'Raw', message: 'e' }, null, { once: true }),
  fails('notification.create', { level: 'loud', title: 'Raw', message: 'e' }, BAD_PARAMS),
  fails('notification.create', { level: 'info', message: 'e' }, BAD_PARAMS),
  fails('notification.create', { level: 'info', title: 'Raw' }, BAD_PARAMS),

  // Actions.
  ok('action.export', { id: 'raw', metadata }),
  ok('action.export', { id: 'raw-form', metadata: { ...metadata, hasInput: true, visibility: { disabled: 'why' }, access: 'public', group: 'g', warning: 'w' } }),
  fails('action.export', { id: 'Raw', metadata }, INVALID_ID),
  fails('action.export', { metadata }, INVALID_ID),
  fails('action.export', { id: 'raw' }, BAD_PARAMS),
  fails('action.export', { id: 'raw', metadata: { ...metadata, allowedStatuses: 'never' } }, BAD_PARAMS),
  fails('action.export', { id: 'raw', metadata: { ...metadata, visibility: 'shy' } }, BAD_PARAMS),
  fails('action.export', { id: 'raw', metadata: { ...metadata, access: 'all' } }, BAD_PARAMS),
  ok('action.get-input', { actionId: 'form' }, like({ spec: { text: { type: 'text' } }, value: { text: 'kept' } })),
  ok('action.get-input', { actionId: 'form', prefill: { text: 'given' } }, like({ value: { text: 'given' } })),
  ok('action.get-input', { actionId: 'form' }, (got: any, w: World) => matches(/^[A-Z2-7]{32}$/)((w.seen.event = got.eventId))),
  ok('action.get-input', { actionId: 'raw' }, null),
  ok('action.get-input', { packageId: PEER, actionId: 'configure' }, like({ spec: { name: { type: 'text' }, size: { type: 'number' } } })),
  fails('action.get-input', { actionId: 'not-there' }, NOT_FOUND),
  fails('action.get-input', { packageId: 'not-there', actionId: 'x' }, NOT_FOUND),
  fails('action.get-input', { actionId: 'Not an id' }, INVALID_ID),
  fails('action.get-input', {}, INVALID_ID),
  ok('action.run', { actionId: 'form', input: { text: 'one', number: 2 } }, like({ version: '1', title: 'Form', message: 'one 2', result: null })),
  ok('action.run', (w: World) => ({ actionId: 'form', input: { text: 'two', number: null }, eventId: w.seen.event }), like({ message: 'two null' })),
  fails('action.run', { actionId: 'form', input: { text: 5 } }, ACTION, /text|string|expected/i),
  fails('action.run', { actionId: 'form' }, ACTION),
  ok('action.run', { packageId: PEER, actionId: 'for-anyone' }, like({ version: '1', result: { type: 'single', value: '"for-anyone"', copyable: false, qr: false, masked: false } })),
  ok('action.run', { packageId: PEER, actionId: 'for-anyone', input: null }, like({ title: 'Done' })),
  ok('action.run', { packageId: PEER, actionId: 'hidden' }, like({ title: 'Done' })),
  ok('action.run', { packageId: PEER, actionId: 'says-nothing' }, null),
  ok('action.run', { packageId: PEER, actionId: 'when-running' }, like({ title: 'Done' })),
  ok('action.run', { packageId: PEER, actionId: 'old-result' }, like({ message: 'old' })),
  fails('action.run', { packageId: PEER, actionId: 'when-stopped' }, INVALID_REQUEST, /stopped/),
  fails('action.run', { packageId: PEER, actionId: 'disabled' }, INVALID_REQUEST, /not today/),
  fails('action.run', { packageId: PEER, actionId: 'for-user' }, INVALID_REQUEST),
  fails('action.run', { packageId: PEER, actionId: 'throws' }, ACTION, /^no luck$/),
  fails('action.run', { packageId: PEER, actionId: 'not-there' }, NOT_FOUND),
  fails('action.run', { packageId: 'not-there', actionId: 'x' }, NOT_FOUND),
  fails('action.run', { packageId: 'Not an id', actionId: 'x' }, INVALID_ID),
  fails('action.run', {}, INVALID_ID),

  // Dependencies, and what being a dependent opens.
  ok('set-dependencies', { dependencies: [] }),
  ok('get-dependencies', {}, []),
  ok('check-dependencies', {}, []),
  fails('action.run', { packageId: PEER, actionId: 'for-dependents' }, INVALID_REQUEST),
  ok('set-dependencies', { dependencies: [running, exists] }),
  ok('get-dependencies', {}, (got: any[]) => assert.deepEqual(got.sort((a, b) => a.id.localeCompare(b.id)), [running, exists])),
  ok('action.run', { packageId: PEER, actionId: 'for-dependents' }, like({ result: { value: '"for-dependents"' } })),
  ok('check-dependencies', {}, (got: any[]) => assert.deepEqual(got.map(r => r.packageId).sort(), [PEER, 'not-there'])),
  ok('check-dependencies', { packageIds: null }, (got: any[]) => assert.equal(got.length, 2)),
  ok('check-dependencies', { packageIds: ['not-there'] }, [
    { packageId: 'not-there', title: null, installedVersion: null, satisfies: [], isRunning: false, tasks: {}, healthChecks: {} },
  ]),
  ok('check-dependencies', { packageIds: [PEER, 'third'] }, ([got, ...more]: any) => {
    assert.deepEqual(more, [])
    assert.deepEqual(Object.keys(got).sort(), ['healthChecks', 'installedVersion', 'isRunning', 'packageId', 'satisfies', 'tasks', 'title'])
    partly(got, { packageId: PEER, title: 'Conformance peer', installedVersion: '2.1.0:3', satisfies: ['1.9.0:0'], isRunning: true, healthChecks: { page: { result: 'success' } } })
  }),
  fails('check-dependencies', { packageIds: ['Not an id'] }, INVALID_ID),
  fails('check-dependencies', { packageIds: 'x' }, BAD_PARAMS),
  fails('set-dependencies', { dependencies: [{ ...exists, id: 'Not an id' }] }, INVALID_ID),
  fails('set-dependencies', { dependencies: [{ ...exists, kind: 'wanted' }] }, BAD_PARAMS),
  fails('set-dependencies', { dependencies: [{ kind: 'exists', id: 'x' }] }, BAD_PARAMS, /versionRange/),
  fails('set-dependencies', { dependencies: [{ ...exists, versionRange: 'about three' }] }, BAD_PARAMS, /versionRange/),
  fails('set-dependencies', { dependencies: [{ ...running, healthChecks: ['Not an id'] }] }, INVALID_ID),
  fails('set-dependencies', {}, BAD_PARAMS),
  ok('get-installed-packages', {}, (got: string[]) => assert.ok(got.includes(SELF) && got.includes(PEER), String(got))),
  ok('get-service-manifest', { packageId: PEER }, like({ id: PEER, version: '2.1.0:3', satisfies: ['1.9.0:0'], volumes: ['main', 'other'], title: 'Conformance peer' })),
  ok('get-service-manifest', { packageId: SELF }, like({ id: SELF })),
  fails('get-service-manifest', { packageId: 'not-there' }, NOT_FOUND),
  fails('get-service-manifest', { packageId: 'Not an id' }, INVALID_ID),

  // Tasks: a condition is judged by what the form shows now.
  form('peer', 1),
  ok('action.create-task', { ...task, reason: 'because' }),
  taskState(true),
  ok('action.clear-tasks', { only: ['raw', 'unknown'] }),
  taskState(undefined),
  ok('action.create-task', { ...task, when, input: partial({ name: 'peer' }) }),
  taskState(false),
  form('changed', 1),
  taskState(true),
  form('peer', 2),
  taskState(false),
  ok('action.create-task', { ...task, when: { ...when, once: true }, input: partial({ size: 3 }, { size: 4 }) }),
  taskState(true),
  form('peer', 4),
  taskState(undefined),
  ok('action.create-task', { ...task, when: { ...when, once: true }, input: partial({ size: 4 }) }),
  taskState(undefined),
  ok('action.create-task', { ...task, when, input: { kind: 'partial', value: { size: 5 } } }),
  taskState(true),
  ok('action.create-task', { ...task, replayId: 'any text / ~ at all', actionId: 'for-user', severity: 'optional' }),
  ok('action.clear-tasks', { except: ['any text / ~ at all'] }),
  taskState(undefined),
  ok('check-dependencies', { packageIds: [PEER] }, ([got]: any) =>
    assert.deepEqual(got.tasks['any text / ~ at all'], {
      task: { packageId: PEER, actionId: 'for-user', severity: 'optional', reason: null, when: null, input: null },
      active: true,
    }),
  ),
  ok('action.clear-tasks', { except: [] }),
  form('peer', 1),
  fails('action.create-task', { ...task, replayId: undefined }, BAD_PARAMS),
  fails('action.create-task', { ...task, severity: 'huge' }, BAD_PARAMS),
  fails('action.create-task', { ...task, when }, INVALID_REQUEST),
  fails('action.create-task', { ...task, when: { condition: 'never', once: false } }, BAD_PARAMS),
  fails('action.create-task', { ...task, input: { kind: 'whole', accept: [], set: {} } }, BAD_PARAMS),
  fails('action.create-task', { ...task, packageId: 'Not an id' }, INVALID_ID),
  fails('action.create-task', { ...task, actionId: undefined }, INVALID_ID),
  fails('action.clear-tasks', {}, BAD_PARAMS),
  fails('action.clear-tasks', { only: 'raw' }, BAD_PARAMS),

  // Network.
  ok('bind', { ...web, stack: 'at z', protocol: null }),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9000 }, (got: any, w: World) => {
    assert.deepEqual(Object.keys(got).sort(), ['assignedPort', 'assignedSslPort'])
    assert.equal(got.assignedPort, 19000)
    assert.equal(got.assignedSslPort, null)
    w.seen.net = got
  }),
  ok('bind', { ...web, secure: { ssl: false } }),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9000 }, (got: any, w: World) => assert.deepEqual(got, w.seen.net)),
  ok('bind', { ...web, internalPort: 9001, preferredExternalPort: 80, addSsl: { preferredExternalPort: 19443, scheme: 'https' } }),
  ok('get-service-port-forward', { packageId: null, hostId: 'raw', internalPort: 9001 }, (got: any) => {
    assert.ok(got.assignedPort > 1024, 'a privileged port is never given')
    assert.equal(got.assignedSslPort, 19443)
  }),
  ok('bind', { ...web, internalPort: 9002, preferredExternalPort: 19002, secure: { ssl: true }, addSsl: { preferredExternalPort: 19444, alpn: { specified: ['http/1.1'] }, auth: null } }),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9002 }, { assignedPort: null, assignedSslPort: 19444 }),
  ok('bind', { ...web, internalPort: 9003, preferredExternalPort: 9050 }),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9003 }, (got: any) => assert.ok(got.assignedPort > 1024 && got.assignedPort !== 9050)),
  ok('bind', { ...web, internalPort: 9004, preferredExternalPort: 19000 }),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9004 }, (got: any) => assert.notEqual(got.assignedPort, 19000)),
  fails('bind', { ...web, id: 'Not an id' }, INVALID_ID),
  fails('bind', { ...web, id: undefined }, INVALID_ID),
  fails('bind', { ...web, internalPort: undefined }, BAD_PARAMS),
  fails('bind', { ...web, internalPort: 0 }, BAD_PARAMS),
  fails('bind', { ...web, internalPort: 65536 }, BAD_PARAMS),
  fails('bind', { ...web, internalPort: 9005, preferredExternalPort: undefined }, BAD_PARAMS),
  fails('bind', { ...web, addSsl: 'yes' }, BAD_PARAMS),
  fails('bind', { ...web, secure: true }, BAD_PARAMS),
  fails('get-service-port-forward', { hostId: 'raw', internalPort: 1 }, NOT_FOUND),
  fails('get-service-port-forward', { hostId: 'not-there', internalPort: 9000 }, NOT_FOUND),
  fails('get-service-port-forward', { packageId: 'not-there', hostId: 'raw', internalPort: 9000 }, NOT_FOUND),
  fails('get-service-port-forward', { hostId: 'Not an id', internalPort: 9000 }, INVALID_ID),
  ok('get-service-port-forward', { packageId: PEER, hostId: 'web', internalPort: 8081 }, (got: any) => assert.ok(got.assignedPort > 1024)),

  ok('bind-range', { id: 'raw', internalStartPort: 20000, externalStartPort: 21000, numberOfPorts: 4, stack: 'at z' }),
  ok('bind-range', { id: 'raw', internalStartPort: 20000, externalStartPort: 21000, numberOfPorts: 4 }),
  ok('export-range-service-interface', { hostId: 'raw', internalStartPort: 20000, id: 'raw-range', name: 'Range', description: 'By hand', scheme: 'tcp' }),
  ok('get-host-info', { hostId: 'raw' }, (got: any) => {
    assert.deepEqual(Object.keys(got).sort(), ['bindingRanges', 'bindings', 'portForwards', 'privateDomains', 'publicDomains'])
    partly(got.bindingRanges['20000'], {
      enabled: true,
      externalStartPort: 21000,
      numberOfPorts: 4,
      interface: { id: 'raw-range', name: 'Range', description: 'By hand', scheme: 'tcp' },
    })
    partly(got.bindings['9000'], { enabled: true, net: { assignedPort: 19000 }, options: { preferredExternalPort: 19000, secure: { ssl: false }, addSsl: null } })
    partly(got.bindings['9001'].options.addSsl, { preferredExternalPort: 19443, addXForwardedHeaders: false, alpn: null, auth: null })
  }),
  ok('get-host-info', { hostId: 'raw' }, async (got: any, w: World) => {
    // What a sibling reaches it by: an entry of the containers' bridge.
    const ip = await w.effects.getOsIp()
    const bridge = got.bindings['9000'].addresses.available.filter((a: any) => a.metadata.kind === 'ipv4' && a.metadata.gateway === 'lxcbr0')
    assert.equal(bridge.length, 1, JSON.stringify(got.bindings['9000'].addresses))
    partly(bridge[0], { ssl: false, public: false, hostname: ip, port: 19000 })
  }),
  ok('get-host-info', { packageId: PEER, hostId: 'web' }, like({ bindings: { '8081': { enabled: true } } })),
  ok('get-host-info', { hostId: 'not-there' }, null),
  ok('get-host-info', { packageId: 'not-there', hostId: 'web' }, null),
  fails('get-host-info', { hostId: 'Not an id' }, INVALID_ID),
  fails('get-host-info', {}, INVALID_ID),
  fails('bind-range', { id: 'raw', internalStartPort: 22000, externalStartPort: 22000, numberOfPorts: 1 }, INVALID_REQUEST),
  fails('bind-range', { id: 'raw', internalStartPort: 22000, externalStartPort: 22000, numberOfPorts: 501 }, INVALID_REQUEST),
  fails('bind-range', { id: 'raw', internalStartPort: 22000, externalStartPort: 80, numberOfPorts: 2 }, INVALID_REQUEST),
  fails('bind-range', { id: 'raw', internalStartPort: 65535, externalStartPort: 22000, numberOfPorts: 2 }, INVALID_REQUEST),
  fails('bind-range', { id: 'raw', internalStartPort: 22000, externalStartPort: 21003, numberOfPorts: 2 }, NETWORK, /2100/),
  fails('bind-range', { id: 'Not an id', internalStartPort: 22000, externalStartPort: 22000, numberOfPorts: 2 }, INVALID_ID),
  fails('bind-range', { id: 'raw', externalStartPort: 22000, numberOfPorts: 2 }, BAD_PARAMS),
  fails('export-range-service-interface', { hostId: 'raw', internalStartPort: 1, id: 'x', name: 'X', description: 'x', scheme: null }, NOT_FOUND),
  fails('export-range-service-interface', { hostId: 'raw', internalStartPort: 20000, id: 'Not an id', name: 'X', description: 'x', scheme: null }, INVALID_ID),

  ok('export-service-interface', face),
  ok('get-service-interface', { serviceInterfaceId: 'raw-page' }, face),
  ok('list-service-interfaces', {}, (got: any) => assert.deepEqual(got['raw-page'], face)),
  ok('export-service-interface', { ...face, name: 'Renamed' }),
  ok('get-service-interface', { packageId: null, serviceInterfaceId: 'raw-page' }, { ...face, name: 'Renamed' }),
  ok('get-service-interface', { packageId: PEER, serviceInterfaceId: 'page' }, like({ id: 'page', type: 'ui', addressInfo: { hostId: 'web', internalPort: 8081, suffix: '/start?a=b', scheme: 'http', sslScheme: 'https' } })),
  ok('get-service-interface', { serviceInterfaceId: 'raw-range' }, null),
  ok('get-service-interface', { serviceInterfaceId: 'not-there' }, null),
  ok('list-service-interfaces', { packageId: PEER }, (got: any) => assert.deepEqual(Object.keys(got), ['page'])),
  ok('list-service-interfaces', { packageId: 'not-there' }, {}),
  fails('export-service-interface', { ...face, addressInfo: { ...face.addressInfo, internalPort: 1 } }, NOT_FOUND),
  fails('export-service-interface', { ...face, addressInfo: { ...face.addressInfo, hostId: 'not-there' } }, NOT_FOUND),
  fails('export-service-interface', { ...face, type: 'web' }, BAD_PARAMS),
  fails('export-service-interface', { ...face, id: 'Not an id' }, INVALID_ID),
  fails('export-service-interface', { ...face, addressInfo: undefined }, BAD_PARAMS, /addressInfo/),
  fails('export-service-interface', { ...face, name: undefined }, BAD_PARAMS),
  fails('get-service-interface', { serviceInterfaceId: 'Not an id' }, INVALID_ID),
  fails('get-service-interface', {}, INVALID_ID),
  fails('list-service-interfaces', { packageId: 'Not an id' }, INVALID_ID),
  ok('clear-service-interfaces', { except: ['raw-page'] }),
  ok('list-service-interfaces', {}, (got: any) => assert.deepEqual(Object.keys(got), ['raw-page'])),
  ok('get-host-info', { hostId: 'raw' }, (got: any) => assert.equal(got.bindingRanges['20000'].interface, null)),
  ok('clear-service-interfaces', { except: [] }),
  ok('list-service-interfaces', {}, {}),
  fails('clear-service-interfaces', { except: 'raw-page' }, BAD_PARAMS),

  ok('clear-bindings', { except: [{ id: 'raw', internalPort: 9001 }, { id: 'raw', internalPort: 20000 }] }),
  ok('get-host-info', { hostId: 'raw' }, (got: any, w: World) => {
    assert.deepEqual(Object.entries<any>(got.bindings).filter(([, b]) => b.enabled).map(([port]) => port), ['9001'])
    assert.equal(got.bindingRanges['20000'].enabled, true)
    assert.deepEqual(got.bindings['9000'].net, w.seen.net, 'what was allocated stays')
  }),
  ok('clear-bindings', {}),
  ok('get-host-info', { hostId: 'raw' }, (got: any) => {
    assert.ok(Object.values<any>(got.bindings).every(b => !b.enabled))
    assert.equal(got.bindingRanges['20000'].enabled, false)
  }),
  ok('bind', web),
  ok('get-service-port-forward', { hostId: 'raw', internalPort: 9000 }, (got: any, w: World) => assert.deepEqual(got, w.seen.net)),
  fails('clear-bindings', { except: [{ id: 1 }] }, BAD_PARAMS),
  fails('clear-bindings', { except: [{ id: 'Not an id', internalPort: 1 }] }, INVALID_ID),

  ok('get-os-ip', {}, matches(/^\d+\.\d+\.\d+\.\d+$/)),
  ok('get-container-ip', {}, matches(/^\d+\.\d+\.\d+\.\d+$/)),
  ok('get-container-ip', { packageId: SELF }, matches(/^\d+\.\d+\.\d+\.\d+$/)),
  ok('get-container-ip', { packageId: PEER }, matches(/^\d+\.\d+\.\d+\.\d+$/)),
  ok('get-container-ip', { packageId: 'not-there' }, null),
  fails('get-container-ip', { packageId: 'Not an id' }, INVALID_ID),
  ok('get-outbound-gateway', {}, 'eth0'),
  fails('get-outbound-gateway', { callback: 'x' }, BAD_PARAMS),

  // Certificates and keys.
  ok('get-ssl-certificate', { hostnames: [SELF + '.startos'] }, pems),
  ok('get-ssl-certificate', { hostnames: [SELF + '.embassy', PEER + '.startos'], algorithm: 'ecdsa' }, pems),
  ok('get-ssl-certificate', { hostnames: [SELF + '.startos'], algorithm: 'ed25519' }, pems),
  ok('get-ssl-certificate', async (w: World) => ({ hostnames: [await w.effects.getContainerIp({}), await w.effects.getOsIp()] }), pems),
  fails('get-ssl-certificate', { hostnames: ['example.org'] }, NOT_FOUND, /example\.org/),
  fails('get-ssl-certificate', { hostnames: ['not-there.startos'] }, NOT_FOUND),
  fails('get-ssl-certificate', { hostnames: [SELF + '.startos', '8.8.8.8'] }, NOT_FOUND, /8\.8\.8\.8/),
  fails('get-ssl-certificate', { hostnames: [SELF + '.startos'], algorithm: 'rsa' }, BAD_PARAMS),
  fails('get-ssl-certificate', { hostnames: [] }, BAD_PARAMS),
  fails('get-ssl-certificate', { hostnames: 'x' }, BAD_PARAMS),
  ok('get-ssl-key', { hostnames: [SELF + '.startos'] }, matches(/^-----BEGIN (EC )?PRIVATE KEY-----\n/)),
  ok('get-ssl-key', { hostnames: [SELF + '.startos'], algorithm: 'ed25519' }, matches(/^-----BEGIN PRIVATE KEY-----\n/)),
  fails('get-ssl-key', { hostnames: [PEER + '.startos'] }, NOT_FOUND),
  fails('get-ssl-key', { hostnames: [SELF + '.startos', PEER + '.startos'] }, NOT_FOUND),
  fails('get-ssl-key', async (w: World) => ({ hostnames: [await w.effects.getOsIp()] }), NOT_FOUND),
  fails('get-ssl-key', { hostnames: [] }, BAD_PARAMS),
  fails('get-ssl-key', { hostnames: [SELF + '.startos'], algorithm: 'rsa' }, BAD_PARAMS),

  ok('get-system-smtp', {}, (got: any) => {
    if (got !== null) assert.deepEqual(Object.keys(got).sort(), ['from', 'host', 'password', 'port', 'security', 'username'])
  }),

  fails('get-system-smtp', { callback: {} }, BAD_PARAMS),

  // Addresses that a plugin provides for others.
  ok('plugin.url.register', { tableAction: 'form' }),
  fails('plugin.url.register', { tableAction: 'Not an id' }, INVALID_ID),
  fails('plugin.url.register', {}, INVALID_ID),
  ok('plugin.url.export-url', { hostnameInfo: url, removeAction: 'form', overflowActions: ['raw'] }),
  ok('plugin.url.export-url', { hostnameInfo: { ...url, hostname: 'second.onion' }, removeAction: null, overflowActions: [] }),
  ok('get-host-info', { packageId: PEER, hostId: 'web' }, (got: any) => {
    const list = pluginURLs(got)
    assert.equal(list.length, 2)
    const first = list.find((a: any) => a.hostname === 'probe.onion')
    partly(first, { ssl: false, public: true, port: 80, metadata: { kind: 'plugin', packageId: SELF, removeAction: 'form', overflowActions: ['raw'], info: { k: 1 } } })
  }),
  fails('plugin.url.export-url', { hostnameInfo: { ...url, internalPort: 1 }, removeAction: null, overflowActions: [] }, NOT_FOUND),
  fails('plugin.url.export-url', { hostnameInfo: { ...url, packageId: 'not-there' }, removeAction: null, overflowActions: [] }, NOT_FOUND),
  fails('plugin.url.export-url', { hostnameInfo: { ...url, hostId: 'Not an id' }, removeAction: null, overflowActions: [] }, INVALID_ID),
  fails('plugin.url.export-url', { hostnameInfo: { ...url, hostname: undefined }, removeAction: null, overflowActions: [] }, BAD_PARAMS),
  fails('plugin.url.export-url', { hostnameInfo: url, removeAction: 'Not an id', overflowActions: [] }, INVALID_ID),
  fails('plugin.url.export-url', { removeAction: null, overflowActions: [] }, BAD_PARAMS),
  ok('plugin.url.clear-urls', { except: [url] }),
  ok('get-host-info', { packageId: PEER, hostId: 'web' }, (got: any) => assert.deepEqual(pluginURLs(got).map((a: any) => a.hostname), ['probe.onion'])),
  ok('plugin.url.clear-urls', { except: [] }),
  ok('get-host-info', { packageId: PEER, hostId: 'web' }, (got: any) => assert.deepEqual(pluginURLs(got), [])),
  fails('plugin.url.clear-urls', { except: 1 }, BAD_PARAMS),

  // Subcontainers and mounts.
  ok('subcontainer.create-fs', { imageId: 'main', name: null }, async ([path, guid]: any, w: World) => {
    matches(/^[A-Z2-7]{32}$/)(guid)
    assert.equal(path, `/media/startos/subcontainers/${guid}`)
    ;(w.seen.guids ??= []).push(guid)
  }),
  ok('subcontainer.create-fs', { imageId: 'main' }, ([, guid]: any, w: World) => w.seen.guids.push(guid)),
  ok('subcontainer.destroy-fs', (w: World) => ({ guid: w.seen.guids[0] })),
  ok('subcontainer.destroy-fs', (w: World) => ({ guid: w.seen.guids[0] }), null, { note: 'again' }),
  ok('subcontainer.destroy-fs', async (w: World) => {
    for (const guid of w.seen.guids.splice(0)) await w.effects.subcontainer.destroyFs({ guid })
    return { guid: 'unknown' }
  }),
  fails('subcontainer.create-fs', { imageId: 'not-there', name: null }, NOT_FOUND),
  fails('subcontainer.create-fs', { imageId: '../main', name: null }, INVALID_ID),
  fails('subcontainer.create-fs', {}, INVALID_ID),
  fails('subcontainer.destroy-fs', { guid: 7 }, BAD_PARAMS),

  ok('mount', { location: '/mnt/raw', target: { ...target, type: 'pointer', filetype: 'directory' } }),
  ok('mount', { location: '/mnt/raw-own', target: { ...target, packageId: SELF, subpath: 'made/here', readonly: false } }),
  ok('mount', { location: '/mnt/raw-ids', target: { ...target, subpath: '/', idmap: [{ fromId: 0, toId: 1000, range: 1 }] } }),
  fails('mount', { location: '/mnt/raw', target: { ...target, subpath: 'not-there' } }, FILESYSTEM),
  fails('mount', { location: '/mnt/raw', target: { ...target, subpath: '../other' } }, INVALID_REQUEST),
  fails('mount', { location: '/mnt/raw', target: { ...target, volumeId: 'not-there' } }, NOT_FOUND),
  fails('mount', { location: '/mnt/raw', target: { ...target, volumeId: '../main' } }, INVALID_ID),
  fails('mount', { location: '/mnt/raw', target: { ...target, packageId: 'third' } }, INVALID_REQUEST, /depend/),
  fails('mount', { location: '/mnt/raw', target: { ...target, packageId: 'Not an id' } }, INVALID_ID),
  fails('mount', { target }, BAD_PARAMS),
  fails('mount', { location: '/mnt/raw' }, INVALID_ID),
  fails('mount', { location: '/mnt/raw', target: { ...target, idmap: [{ fromId: -1, toId: 0, range: 1 }] } }, BAD_PARAMS),
  fails('selfstead.bind-mount', { source: '/etc', target: '/mnt/etc', idmap: [] }, INVALID_REQUEST),
  fails('selfstead.bind-mount', { source: '/media/startos/volumes/main/../../../../etc', target: '/mnt/etc', idmap: [] }, INVALID_REQUEST),
  fails('selfstead.bind-mount', { source: '/media/startos/volumes/not-there', target: '/mnt/x', idmap: [] }, INVALID_REQUEST),

  ok('action.clear', { except: ['raw', ...'run results call form kinds watch watched'.split(' ')] }),
  fails('action.get-input', { actionId: 'raw-form' }, NOT_FOUND),
  fails('action.clear', { except: 'raw' }, BAD_PARAMS),

  fails('clear-callbacks', {}, BAD_PARAMS),
  fails('clear-callbacks', { only: 'x' }, BAD_PARAMS),
  ok('clear-callbacks', { only: [] }),
  ok('clear-callbacks', { only: [987654] }),
]
