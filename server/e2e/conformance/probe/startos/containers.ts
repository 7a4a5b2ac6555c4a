import * as assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { eventually, test, type Case, type World } from './row'
import { sdk } from './sdk'

const image = { imageId: 'main' } as const
type Sub = Parameters<Parameters<typeof sdk.SubContainer.withTemp<unknown>>[4]>[0]
type Mounts = ReturnType<typeof sdk.Mounts.of>

const temp = <V>(w: World, mounts: Mounts | null, fn: (sub: Sub) => Promise<V>) => sdk.SubContainer.withTemp(w.effects, image, mounts, 'case', fn)

/** Runs a shell script and returns what it printed; retried while the output is cut short by the end of its process. */
const sh = async (sub: Sub, script: string, options = {}) => {
  const got = await sub.execFail(['sh', '-c', `${script}; echo .`], { ...options })
  return String(got.stdout).replace(/\n?\.\n$/, '')
}

const exists = (path: string) => fs.stat(path).then(
  () => true,
  () => false,
)
const peerVolume = (more = {}) => ({ dependencyId: 'conformance-peer', volumeId: 'main', subpath: null, mountpoint: '/peer', readonly: true, ...more })

export const containers: Case[] = [
  test('subcontainer: exit codes, both outputs, input', w =>
    temp(w, null, async sub => {
      const got = await sub.exec(['sh', '-c', 'cat; echo wrong >&2; exit 41'], { input: 'grüße' })
      assert.deepEqual([got.exitCode, got.exitSignal, got.stdout, got.stderr], [41, null, 'grüße', 'wrong\n'])
      await assert.rejects(sub.execFail(['false']), /1/)
      assert.notEqual((await sub.exec(['/not/there'])).exitCode, 0)
    }),
  ),
  test("subcontainer: the image's environment, folder and user, and others", w =>
    temp(w, null, async sub => {
      assert.equal(await sh(sub, 'echo $FROM_IMAGE $PWD $(id -u) $HOME'), 'yes /tmp 0 /root')
      assert.equal(await sh(sub, 'echo $FROM_IMAGE $ADDED', { env: { ADDED: 'a b', FROM_IMAGE: 'over' } }), 'over a b')
      assert.equal(await sh(sub, 'pwd', { cwd: '/etc' }), '/etc')
      assert.equal(await sh(sub, 'id -u; id -g; echo $HOME', { user: 'nobody' }), '65534\n65534\n/nonexistent')
      assert.equal(await sh(sub, 'id -u; id -g', { user: '1:games' }), '1\n60')
      assert.equal(await sh(sub, 'id -u; id -g', { user: '1234:5678' }), '1234\n5678')
    }),
  ),
  test('subcontainer: a command that takes too long is killed', w =>
    temp(w, null, async sub => {
      const since = Date.now()
      const got = await sub.exec(['sleep', '60'], {}, 200)
      assert.equal(got.exitSignal, 'SIGKILL')
      assert.ok(Date.now() - since < 20_000)
      const abort = new AbortController()
      const slow = sub.exec(['sleep', '60'], {}, null, abort)
      setTimeout(() => abort.abort(), 100)
      assert.equal((await slow).exitSignal, 'SIGKILL')
    }),
  ),
  test('subcontainer: signals reach the command', w =>
    temp(w, null, async sub => {
      const child = await sub.spawn(['sh', '-c', 'trap "exit 7" USR1; echo up; while :; do sleep 0.05; done'], { stdio: 'pipe' })
      await new Promise(resolve => child.stdout!.once('data', resolve))
      const exit = new Promise(resolve => child.once('exit', code => resolve(code)))
      child.kill('SIGUSR1')
      assert.equal(await exit, 7)
    }),
  ),
  test('subcontainer: a root of its own, written to, gone afterwards', async w => {
    const root = await temp(w, null, async sub => {
      await sub.writeFile('/tmp/made', 'by hand')
      assert.equal(await sh(sub, 'cat /tmp/made; echo more >/srv/more'), 'by hand')
      assert.equal(await fs.readFile(sub.subpath('/srv/more'), 'utf8'), 'more\n')
      assert.ok(await temp(w, null, async other => !(await exists(other.subpath('/srv/more')))))
      return sub.rootfs
    })
    assert.ok(!(await exists(root + '/etc')), 'the root is gone')
  }),
  test('subcontainer: processes of its own, the network of the service', w =>
    temp(w, null, async sub => {
      assert.ok(Number(await sh(sub, 'ls -d /proc/[0-9]* | wc -l')) < 10)
      assert.equal(await sh(sub, 'cat /etc/resolv.conf'), (await fs.readFile('/etc/resolv.conf', 'utf8')).trimEnd())
      assert.match(await sh(sub, 'busybox ip -4 addr'), new RegExp(await w.effects.getContainerIp({})))
      assert.match(await sh(sub, 'cat /etc/hosts'), /127\.0\.0\.1 localhost/)
      assert.equal(await sh(sub, 'cat /etc/hostname'), (await fs.readFile('/etc/hostname', 'utf8')).trim())
      assert.equal(await sh(sub, 'echo x >/dev/null && test -d /sys/class/net && test -c /dev/urandom && echo ok'), 'ok')
    }),
  ),
  test('subcontainer: a lazy one is made at its first use, and destroying it twice is no error', async w => {
    const sub = sdk.SubContainer.of(w.effects, image, null, 'lazy')
    const before = (await fs.readdir('/media/startos/subcontainers')).length
    assert.equal(String((await sub.exec(['echo', 'hi'])).stdout), 'hi\n')
    assert.equal((await fs.readdir('/media/startos/subcontainers')).length, before + 1)
    await sub.destroy()
    await sub.destroy()
    await eventually(async () => assert.ok((await fs.readdir('/media/startos/subcontainers')).length <= before))
  }),
  test('subcontainer: leaving its context destroys it', async w => {
    const child = w.effects.child('short')
    const sub = await sdk.SubContainer.eager(child, image, null, 'short')
    assert.ok(await exists(sub.subpath('/etc')))
    assert.ok(child.isInContext)
    w.effects.child('short') // entering a name again leaves what had it
    assert.ok(!child.isInContext)
    await eventually(async () => assert.ok(!(await exists(sub.subpath('/etc')))))
  }),
  test('subcontainer: launched again with a command as its process 1', w =>
    temp(w, null, async sub => {
      await sh(sub, 'touch /tmp/kept')
      const child = await sub.launch(['sh', '-c', 'test -e /tmp/kept && echo $$ >/tmp/pid'])
      assert.equal(await new Promise(resolve => child.once('exit', resolve)), 0)
      assert.equal(await fs.readFile(sub.subpath('/tmp/pid'), 'utf8'), '1\n')
    }),
  ),
  test('subcontainer: an image that is not there', async w => {
    await assert.rejects(sdk.SubContainer.eager(w.effects, { imageId: 'nothing' as 'main' }, null, 'x'), /Not Found.*create-fs/s)
  }),
  test('subcontainer: sharedRun shares /run', async w => {
    await fs.writeFile('/run/shared', 'run')
    await sdk.SubContainer.withTemp(w.effects, { ...image, sharedRun: true }, null, 'run', async sub => assert.equal(await sh(sub, 'cat /run/shared'), 'run'))
  }),

  test("start-container: the effects that the container's own program offers", async w => {
    const { execFile } = await import('node:child_process')
    const program = (...args: string[]) =>
      new Promise<{ code: number; out: string; err: string }>(resolve =>
        execFile('start-container', args, (e, out, err) => resolve({ code: e ? Number(e.code) : 0, out, err })),
      )
    assert.deepEqual(await program('echo', 'grüße'), { code: 0, out: 'grüße\n', err: '' })
    assert.equal((await program('get-data-version')).out, '1.0.0:0\n')
    assert.equal((await program('get-os-ip')).out.trim(), await w.effects.getOsIp())
    assert.deepEqual(JSON.parse((await program('get-status')).out).desired, { main: 'running' })
    assert.deepEqual(JSON.parse((await program('get-dependencies')).out), await w.effects.getDependencies())
    const [made] = [JSON.parse((await program('subcontainer', 'create-fs', '--name', 'by-hand', 'main')).out)]
    assert.ok(await exists(made[0] + '/etc'))
    assert.equal((await program('subcontainer', 'destroy-fs', made[1])).code, 0)
    const failed = await program('subcontainer', 'create-fs', 'not-there')
    assert.equal(failed.code, 6, 'the exit code is that of the error')
    assert.match(failed.err, /not-there/)
    assert.notEqual((await program('reboot')).code, 0)
  }),

  test('mounts: a volume, part of it, one file of it', async w => {
    await sdk.volumes.data.writeFile('file.txt', 'of the volume')
    const mounts = sdk.Mounts.of()
      .mountVolume({ volumeId: 'data', subpath: null, mountpoint: '/whole', readonly: false })
      .mountVolume({ volumeId: 'data', subpath: 'made/for/it', mountpoint: '/part', readonly: false })
      .mountVolume({ volumeId: 'data', subpath: 'file.txt', mountpoint: '/etc/one.txt', readonly: false, type: 'file' })
    await temp(w, mounts, async sub => {
      assert.equal(await sh(sub, 'cat /whole/file.txt'), 'of the volume')
      assert.equal(await sh(sub, 'cat /etc/one.txt; echo in >/part/in.txt; cat /whole/made/for/it/in.txt'), 'of the volumein')
    })
    assert.equal(await sdk.volumes.data.readFile('made/for/it/in.txt', 'utf8'), 'in\n')
    await fs.rm(sdk.volumes.data.subpath('made'), { recursive: true })
  }),
  test('mounts: a volume under other ids', async w => {
    await fs.rm(sdk.volumes.data.subpath('ids'), { recursive: true, force: true })
    await fs.mkdir(sdk.volumes.data.subpath('ids'))
    const mounts = sdk.Mounts.of().mountVolume({ volumeId: 'data', subpath: 'ids', mountpoint: '/ids', readonly: false, idmap: [{ fromId: 0, toId: 1000 }] })
    await temp(w, mounts, async sub => {
      assert.equal(await sh(sub, 'stat -c %u /ids; echo mine >/ids/mine', { user: '1000:1000' }), '1000')
    })
    assert.equal((await fs.stat(sdk.volumes.data.subpath('ids/mine'))).uid, 0)
  }),
  test('mounts: the assets', w =>
    temp(w, sdk.Mounts.of().mountAssets({ subpath: 'texts', mountpoint: '/assets' }), async sub => {
      assert.equal(await sh(sub, 'cat /assets/one.txt'), 'an asset')
      assert.notEqual((await sub.exec(['sh', '-c', 'echo x >/assets/one.txt'])).exitCode, 0, 'they cannot be written')
    }),
  ),
  test("mounts: a dependency's volume, read-only when asked", async w => {
    await temp(w, sdk.Mounts.of().mountDependency(peerVolume()), async sub => {
      assert.match(await sh(sub, 'cat /peer/settings.json'), /"name"/)
      for (const script of ['echo x >/peer/new', 'rm /peer/settings.json', 'chmod 777 /peer', 'mount -o remount,rw /peer && echo x >/peer/new']) {
        assert.notEqual((await sub.exec(['sh', '-c', script])).exitCode, 0, script)
      }
    })
    await temp(w, sdk.Mounts.of().mountDependency(peerVolume({ readonly: false, subpath: 'by-probe' })), async sub => {
      assert.equal(await sh(sub, 'echo written >/peer/here; cat /peer/here'), 'written')
    })
  }),
  test("mounts: a dependency's files belong to whom they belong there", w =>
    temp(w, sdk.Mounts.of().mountDependency(peerVolume({ readonly: false })), async sub => assert.equal(await sh(sub, 'stat -c %u /peer/settings.json'), '0')),
  ),
  test("mounts: a dependency's volume under other ids", w =>
    temp(w, sdk.Mounts.of().mountDependency(peerVolume({ idmap: [{ fromId: 0, toId: 1000, range: 1 }] })), async sub =>
      assert.equal(await sh(sub, 'stat -c %u /peer/settings.json'), '1000'),
    ),
  ),
  test("mounts: no volume of who is no dependency, nothing outside the volume, no volume that is not there", async w => {
    for (const more of [{ dependencyId: 'stranger' }, { subpath: '../other' }, { subpath: 'a/../../other' }, { volumeId: 'nothing' }]) {
      await assert.rejects(temp(w, sdk.Mounts.of().mountDependency(peerVolume(more)), async () => {}), /@mount/, JSON.stringify(more))
    }
  }),
  test("mounts: a link that leads out of a dependency's volume leads nowhere", async w => {
    const link = '/mnt/linking'
    const target = { packageId: w.peer, volumeId: 'main', readonly: false, idmap: [], type: 'pointer', filetype: 'directory' }
    await w.effects.mount({ location: link, target: { ...target, subpath: null } } as any)
    await fs.rm(link + '/out', { force: true })
    await fs.symlink('../../../../../../../../etc', link + '/out')
    const inside = await fs.readdir('/etc')
    await w.effects.mount({ location: '/mnt/out', target: { ...target, subpath: 'out' } } as any).then(
      async () => assert.ok(!(await fs.readdir('/mnt/out')).some(n => inside.includes(n) || n === 'shadow')),
      e => assert.match(String(e), /@mount/),
    )
  }),
]
