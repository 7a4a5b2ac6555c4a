import * as assert from 'node:assert/strict'
import * as crypto from 'node:crypto'
import * as tls from 'node:tls'
import { setInterfaces, title } from './init'
import { eventually, partly, test, type Case } from './row'
import { sdk } from './sdk'

const fetchText = async (url: string) => (await fetch(url, { signal: AbortSignal.timeout(5000) })).text()

export const network: Case[] = [
  test('interfaces: known protocols, a plain port and a range', async w => {
    await setInterfaces(w.effects)
    const web = (await sdk.host.getOwn(w.effects, 'web').once())!
    const shell = (await sdk.host.getOwn(w.effects, 'shell').once())!
    partly(web.bindings[8080]!.options, { preferredExternalPort: 18080, secure: null, addSsl: { preferredExternalPort: 443, alpn: { specified: ['http/1.1'] } } })
    partly(web.bindings[8080]!.net, { assignedPort: 18080 })
    partly(shell.bindings[2222]!.options, { secure: { ssl: false }, addSsl: null })
    partly(web.bindings[8080]!.interfaces.page, { type: 'ui', masked: false })
    partly(web.bindings[8080]!.interfaces.api!.addressInfo, { username: 'me', suffix: '/v1?q=%C3%BC', scheme: 'http', sslScheme: 'https' })
    partly(web.bindingRanges[40000], { externalStartPort: 41000, numberOfPorts: 3, enabled: true, interface: { id: 'media', scheme: 'tcp' } })
    assert.ok(web.bindings[8080]!.addresses.available.length > 0)
  }),
  test('interfaces: what is no longer made is disabled and loses its interfaces', async w => {
    const host = sdk.MultiHost.of(w.effects, 'passing')
    const origin = await host.bindPort(7000, { protocol: 'http', preferredExternalPort: 17000 })
    await origin.export([
      sdk.createInterface(w.effects, { name: 'P', id: 'passing', description: '', type: 'ui', masked: false, schemeOverride: null, username: null, path: '', query: {} }),
    ])
    assert.ok((await w.effects.listServiceInterfaces({})).passing)
    await setInterfaces(w.effects)
    assert.equal((await w.effects.listServiceInterfaces({})).passing, undefined)
    assert.equal((await w.effects.getHostInfo({ hostId: 'passing' }))?.bindings[7000]?.enabled, false)
  }),
  test('interfaces: made anew when what they were made from changes', async w => {
    const name = `Page ${Date.now()}`
    // What stands beside them goes last, and so tells when all of it is done.
    const beside = await sdk.MultiHost.of(w.effects, 'beside').bindPort(7002, { protocol: 'http', preferredExternalPort: 17002 })
    await beside.export([
      sdk.createInterface(w.effects, { name: 'B', id: 'beside', description: '', type: 'ui', masked: false, schemeOverride: null, username: null, path: '', query: {} }),
    ])
    await title.write(w.effects, { title: name })
    await eventually(async () => assert.equal((await w.effects.getServiceInterface({ serviceInterfaceId: 'page' }))?.name, name))
    await eventually(async () => {
      assert.equal((await w.effects.listServiceInterfaces({})).beside, undefined)
      assert.equal((await w.effects.getHostInfo({ hostId: 'beside' }))?.bindings[7002]?.enabled, false)
    })
    assert.ok((await w.effects.listServiceInterfaces({})).shell, 'the others are still there')
  }),
  test('interfaces: a port that needs no TLS of ours, and one that brings its own', async w => {
    const host = sdk.MultiHost.of(w.effects, 'own-tls')
    await host.bindPort(7443, { protocol: 'https', preferredExternalPort: 17443 })
    await host.bindPort(7001, { protocol: null, preferredExternalPort: 17001, addSsl: null, secure: { ssl: false } })
    const got = (await w.effects.getHostInfo({ hostId: 'own-tls' }))!
    partly(got.bindings[7443]!.options, { secure: { ssl: true } })
    partly(got.bindings[7001]!, { enabled: true, net: { assignedPort: 17001, assignedSslPort: null } })
    await setInterfaces(w.effects)
  }),
  test('interfaces: the page is reached from inside, by its own address and the bridge', async w => {
    const own = await w.effects.getContainerIp({})
    assert.equal(await fetchText(`http://${own}:8080/kept.txt`), 'kept')
    const { assignedPort } = await w.effects.getServicePortForward({ hostId: 'web', internalPort: 8080 })
    assert.equal(await fetchText(`http://${await sdk.getOsIp(w.effects)}:${assignedPort}/kept.txt`), 'kept')
  }),
  test('dependencies: reached by the bridge address that the SDK resolves', async w => {
    const address = await sdk.host.getBridgeAddress(w.effects, { packageId: w.peer, hostId: 'web', internalPort: 8081, ssl: false }).once()
    assert.match(String(address), new RegExp(`^${(await w.effects.getOsIp()).replaceAll('.', '\\.')}:\\d+$`))
    await eventually(async () => assert.equal(await fetchText(`http://${address}/`), 'the peer\n'))
    assert.equal(await sdk.host.getBridgeAddress(w.effects, { packageId: 'not-there', hostId: 'web', internalPort: 1 }).once(), null)
    assert.match(await sdk.host.getBridgeAddress(w.effects, { packageId: 'not-there', hostId: 'web', internalPort: 1, fallbackPort: 9050 }).once(), /:9050$/)
  }),
  test('dependencies: named by the resolver', async w => {
    const dns = await import('node:dns/promises')
    const resolver = new dns.Resolver()
    resolver.setServers([await w.effects.getOsIp()])
    assert.deepEqual(await resolver.resolve4(`${w.self}.startos`), [await w.effects.getContainerIp({})])
    const peer = await w.effects.getContainerIp({ packageId: w.peer })
    assert.deepEqual(await resolver.resolve4(`${w.peer}.startos`), [peer])
    assert.deepEqual(await resolver.resolve4(`${w.peer}.embassy`), [peer])
    await assert.rejects(resolver.resolve4('not-there.startos'))
  }),
  test('certificates: a chain for its own name that a client of the server trusts', async w => {
    const hostnames = [`${w.self}.startos`, await w.effects.getContainerIp({})]
    for (const algorithm of ['ecdsa', 'ed25519'] as const) {
      const [leaf, intermediate, root] = await sdk.getSslCertificate(w.effects, hostnames, algorithm).once()
      const key = await sdk.getSslKey(w.effects, { hostnames, algorithm })
      const chain = [leaf, intermediate, root].map(pem => new crypto.X509Certificate(pem!))
      assert.ok(chain[0]!.checkPrivateKey(crypto.createPrivateKey(key)), 'the key is that of the certificate')
      assert.ok(chain[0]!.verify(chain[1]!.publicKey) && chain[1]!.verify(chain[2]!.publicKey) && chain[2]!.verify(chain[2]!.publicKey))
      assert.ok(chain[0]!.checkHost(hostnames[0]!) && chain[0]!.checkIP(hostnames[1]!))
      assert.equal(chain[0]!.publicKey.asymmetricKeyType, algorithm === 'ecdsa' ? 'ec' : 'ed25519')
      assert.ok(chain[1]!.ca && chain[2]!.ca && !chain[0]!.ca)
      const server = tls.createServer({ cert: leaf! + intermediate!, key }, socket => socket.end('over TLS'))
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
      const text = await new Promise<string>((resolve, reject) => {
        const s = tls.connect({ port: (server.address() as any).port, host: '127.0.0.1', servername: hostnames[0], ca: root })
        s.on('data', d => resolve(String(d)))
        s.on('error', reject)
      })
      assert.equal(text, 'over TLS')
      server.close()
    }
  }),
  test('certificates: the same names have the same key', async w => {
    const hostnames = [`${w.self}.startos`]
    const [a, b] = [await sdk.getSslKey(w.effects, { hostnames }), await sdk.getSslKey(w.effects, { hostnames })]
    assert.equal(a, b)
    const [one] = await sdk.getSslCertificate(w.effects, hostnames).once()
    assert.ok(new crypto.X509Certificate(one!).checkPrivateKey(crypto.createPrivateKey(a)))
  }),
  test('mail: what the server is set to, or null', async w => {
    const smtp = await sdk.getSystemSmtp(w.effects).once()
    if (smtp) assert.deepEqual(Object.keys(smtp).sort(), ['from', 'host', 'password', 'port', 'security', 'username'])
  }),
  test('gateway: the one of the default route', async w => assert.equal(await sdk.getOutboundGateway(w.effects).once(), 'eth0')),
  test('plugin: addresses for another package', async w => {
    const hostnameInfo = { packageId: 'conformance-peer', hostId: 'web', internalPort: 8081, ssl: false, public: true, hostname: 'sdk.onion', port: null, info: null }
    const plugin = (sdk as any).plugin.url
    await plugin.register(w.effects, { tableAction: { id: 'form', _INPUT: {} } })
    const exported = plugin.setupExportedUrls(async ({ effects }: any) => {
      await plugin.exportUrl(effects, { hostnameInfo, removeAction: { id: 'form' }, overflowActions: [] })
    })
    await exported(w.effects)
    const available = async () => (await w.effects.getHostInfo({ packageId: w.peer, hostId: 'web' }))!.bindings[8081]!.addresses.available.map(a => a.hostname)
    assert.ok((await available()).includes('sdk.onion'))
    const none = plugin.setupExportedUrls(async () => {})
    await none(w.effects)
    assert.ok(!(await available()).includes('sdk.onion'), 'what is no longer exported goes')
  }),
]
