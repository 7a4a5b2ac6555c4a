// A package's code without the SDK: what a bundle must export, written by hand.
// The test puts a line before it that defines `test`.
'use strict'
const fs = require('fs/promises')
const net = require('net')
const { spawn, execFile } = require('child_process')

const volume = '/media/startos/volumes/main'
const run = (...argv) =>
  new Promise((done, fail) =>
    execFile('/usr/bin/start-container', argv, (e, out, err) => (e ? fail(new Error(`${argv}: ${err || e}`)) : done(out))),
  )
const listening = port =>
  new Promise(done => {
    const s = net.connect(port, '127.0.0.1')
    s.on('connect', () => (s.destroy(), done(true))).on('error', () => done(false))
  })

let name = async () => (await fs.readFile(`${volume}/name`, 'utf8').catch(() => test.id)).trim()

exports.manifest = {}

exports.init = async ({ effects, kind }) => {
  await fs.appendFile(`${volume}/inits`, `${kind}\n`)
  if (test.failInit && kind !== test.failInit.not) throw new Error('init says no')
  if (test.hangInit && kind === null && !(await fs.readFile(`${volume}/hung`).catch(() => null))) {
    await fs.writeFile(`${volume}/hung`, '')
    await new Promise(() => setInterval(() => {}, 1000))
  }
  if (test.slowInit) await new Promise(done => setTimeout(done, test.slowInit))
  const version = await effects.getDataVersion()
  if (kind === 'restore') {
    await fs.cp('/media/startos/backup/main', volume, { recursive: true, force: true })
    await fs.writeFile('/media/startos/backup/trace', '').then(
      () => fs.writeFile(`${volume}/trace`, ''),
      () => {},
    )
    if (test.failRestore) throw new Error('restore says no')
    await fs.appendFile(`${volume}/inits`, `${kind}\n`)
  }
  for (let step = 1; kind === 'update' && step <= (test.steps || 0); step++) {
    await fs.writeFile(`${volume}/ledger`, `step ${step} of ${test.version}\n`)
    await fs.rm(`${volume}/old${step}`, { force: true })
    const fault = (test.fault || {})[step]
    if (fault === 'throw') throw new Error(`step ${step} says no`)
    if (fault === 'exit') process.exit(1)
    if (fault === 'kill') process.kill(process.pid, 'SIGKILL')
    if (fault === 'hang') await new Promise(() => setInterval(() => {}, 1000))
    if (fault === 'fill') await fs.writeFile(`${volume}/filler`, Buffer.alloc(512 << 20, 1))
    await effects.setDataVersion({ version: `${test.version}` })
  }
  if (version !== test.version) await effects.setDataVersion({ version: test.version })
  if (kind === 'install' && test.ledger) {
    await fs.writeFile(`${volume}/ledger`, test.ledger)
    for (let i = 1; i < 4; i++) await fs.writeFile(`${volume}/old${i}`, 'old\n')
  }
  await effects.bind({ id: 'ui-multi', internalPort: 8080, preferredExternalPort: test.port, addSsl: null, secure: null, stack: 'x' })
  await effects.exportServiceInterface({
    id: 'ui', name: 'UI', description: 'The page', masked: false, type: 'ui',
    addressInfo: { username: null, hostId: 'ui-multi', internalPort: 8080, scheme: 'http', sslScheme: null, suffix: '' },
  })
  if (test.inner) await effects.bind({ id: 'inner', internalPort: 8080, preferredExternalPort: test.inner, addSsl: null, secure: null })
  await effects.clearBindings({ except: [{ id: 'ui-multi', internalPort: 8080 }, { id: 'inner', internalPort: 8080 }] })
  await effects.clearServiceInterfaces({ except: ['ui'] })
  await effects.setDependencies({ dependencies: test.needs || test.claims ? [{ kind: 'running', id: test.needs || test.claims, versionRange: '*', healthChecks: ['web'] }] : [] })
  if (test.needs) {
    const follow = async () => {
      const status = await effects.getStatus({ packageId: test.needs, callback: () => follow() })
      await fs.appendFile(`${volume}/followed`, `${status ? status.desired.main : null}\n`)
    }
    await follow()
  }
  await effects.action.export({
    id: 'set-name',
    metadata: { name: 'Set name', description: 'd', warning: null, visibility: 'enabled', allowedStatuses: 'any', hasInput: true, group: null },
  })
  if (test.smtp) {
    const follow = async () => {
      const smtp = await effects.getSystemSmtp({ callback: () => follow() })
      await fs.appendFile(`${volume}/smtp`, `${JSON.stringify(smtp)}\n`)
    }
    await follow()
  }
  if (test.certificate) {
    const follow = async () => {
      const [leaf] = await effects.getSslCertificate({ hostnames: [`${test.id}.startos`], callback: () => follow() })
      const { validTo, publicKey } = new (require('crypto').X509Certificate)(leaf)
      const key = publicKey.export({ type: 'spki', format: 'der' }).toString('hex')
      await fs.appendFile(`${volume}/certificates`, JSON.stringify({ until: new Date(validTo).toJSON(), key }) + '\n')
    }
    await follow()
  }
  for (const id of ['count', 'relay', 'measure']) {
    await effects.action.export({
      id,
      metadata: { name: id, description: 'd', warning: null, visibility: 'enabled', allowedStatuses: 'any', hasInput: false, group: null, access: 'public' },
    })
  }
  if (test.task) {
    await effects.action.createTask({
      replayId: 'name-me', packageId: test.id, actionId: 'set-name', severity: 'critical', reason: 'it needs a name',
      when: { condition: 'input-not-matches', once: false }, input: { kind: 'partial', accept: [{ name: 'named' }], set: { name: 'named' } },
    })
  }
  await effects.action.clear({ except: ['set-name', 'count', 'relay', 'measure'] })
}

// What a hostile package may try on the server's socket.
const hostile = async () => {
  const sock = '/media/startos/rpc/host.sock'
  const call = line =>
    new Promise(done => {
      const s = net.connect(sock, () => s.end(line))
      s.on('error', done).on('close', done).on('data', () => {})
    })
  for (let i = 0; i < 300; i++) net.connect(sock).on('error', () => {}) // held for ever
  const junk = ['{', '[', 'null\n', '[[[[\n', '{"id":1}\n', '{"method":"set-health","params":[]}\n', 'x'.repeat(1 << 20)]
  for (let i = 0; i < 150; i++) {
    call(junk[i % junk.length])
    call(`{"id":1,"method":"set-health","params":{"id":"h${i}","name":"n","result":"success"}}\n`)
    call(`{"id":1,"method":"bind","params":{"id":"h${i}","internalPort":${1 + i},"preferredExternalPort":1}}\n`)
    call(`{"id":1,"method":"subcontainer.create-fs","params":{"imageId":"../../main"}}\n`)
    call(`{"id":1,"method":"mount","params":{"location":"/x","target":{"packageId":"alpha","volumeId":"main","readonly":false,"idmap":[]}}}\n`)
    call(`{"id":1,"method":"subcontainer.launch","params":{}}\n`)
    if (i % 10 === 0) await new Promise(done => setTimeout(done, 1))
  }
  await fs.rm(sock)
  await fs.mkdir(sock)
  await fs.writeFile(`${volume}/done`, '')
}

exports.main = async ({ effects }) => ({
  build: async () => {
    if (test.crash && !(await fs.readFile(`${volume}/mended`).catch(() => null))) setTimeout(() => process.exit(3), test.crash)
    if (test.refuse && !(await fs.readFile(`${volume}/mended`).catch(() => null))) throw new Error('start says no')
    if (test.write) {
      const write = async n => {
        await fs.appendFile(`${volume}/written`, Buffer.alloc(1 << 20, 1)).catch(() => {})
        if (writing) setTimeout(write, 10)
      }
      let writing = true
      setTimeout(write, 500)
      return { term: async () => (writing = false) }
    }
    if (test.hostile) {
      if (await fs.readFile(`${volume}/done`).catch(() => null)) return { term: async () => {} }
      hostile().catch(e => console.error(e))
      return { term: async () => {} }
    }
    await effects.setHealth({ id: 'web', name: 'Web', result: 'starting', message: null })
    console.log('address ' + (await effects.getContainerIp({})))
    const [rootfs, guid] = await effects.subcontainer.createFs({ imageId: 'main', name: 'web' })
    await fs.copyFile('/etc/resolv.conf', `${rootfs}/etc/resolv.conf`)
    await run('bind-mount', '--source', volume, '--target', `${rootfs}/data`, '--recursive')
    await run('bind-mount', '--source', volume, '--target', `${rootfs}/mapped`, '--recursive', '--idmap', '0:1000:1')
    if (test.needs) {
      await effects.mount({
        location: `${rootfs}/needed`,
        target: { packageId: test.needs, volumeId: 'main', subpath: null, readonly: true, idmap: [], type: 'pointer', filetype: 'directory' },
      })
    }
    const child = spawn(
      '/usr/bin/start-container',
      ['subcontainer', 'launch', '--env-file=/media/startos/images/main.env', '--user=root', '--workdir=/', rootfs, '/bin/workload', await name(), '8080'],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    )
    const ended = new Promise(done => child.on('exit', done))
    let stopped = false
    const check = async () => {
      while (!stopped) {
        const up = await listening(8080)
        if (stopped) return
        const ill = await fs.readFile(`${volume}/ill`, 'utf8').catch(() => null)
        if (ill) {
          await effects.setHealth({ id: 'web', name: 'Web', result: 'failure', message: ill }).catch(() => {})
          await new Promise(done => setTimeout(done, 20))
          continue
        }
        await effects.setHealth({ id: 'web', name: 'Web', result: up ? 'success' : 'starting', message: up ? 'it listens' : null }).catch(() => {})
        await new Promise(done => setTimeout(done, up ? 1000 : 20))
      }
    }
    check()
    return {
      term: async () => {
        stopped = true
        child.kill('SIGTERM')
        await ended
        await effects.subcontainer.destroyFs({ guid })
      },
    }
  },
})

exports.createBackup = async ({ effects }) => {
  await effects.setBackupProgress({ progress: { done: 1, total: 2, units: 'steps' } })
  await fs.appendFile(`${volume}/backups`, 'backup\n')
  if (await listening(8080)) throw new Error('the service still runs')
  await fs.cp(volume, '/media/startos/backup/main', { recursive: true })
  if (test.hangBackup && !(await fs.readFile(`${volume}/mended`).catch(() => null))) {
    for (;;) {
      await fs.appendFile('/media/startos/backup/ticks', 'tick\n')
      await new Promise(done => setTimeout(done, 20))
    }
  }
  if (test.failBackup) throw new Error('backup says no')
}

exports.uninit = async ({ effects, target }) => {
  if (target !== null) {
    await fs.appendFile(`${volume}/leaves`, `${test.version} to ${target}\n`)
    if (test.leaveFault === 'throw') throw new Error('leave says no')
    if (test.leaveFault === 'exit') process.exit(1)
    if (test.leaveMoves) await effects.setDataVersion({ version: String(target) })
  }
  if (target === null) {
    await fs.appendFile(`${volume}/uninits`, 'uninit\n')
    if (test.slowUninit) await new Promise(done => setTimeout(done, test.slowUninit))
    if (test.failUninit) throw new Error('uninit says no')
    await effects.setDataVersion({ version: null })
  }
}

exports.actions = {
  get: id => ({
    getInput: async ({ effects }) => ({ eventId: effects.eventId, spec: { name: { type: 'text' } }, value: { name: await name() } }),
    run: async ({ effects, input }) => {
      if (id === 'count') {
        await fs.appendFile(`${volume}/runs`, 'run\n')
        await new Promise(done => setTimeout(done, test.slowRun || 0))
        return { version: '1', title: 'counted', message: null, result: null }
      }
      if (id === 'measure') {
        const measure = async call => {
          const took = []
          for (let i = 0; i < 2000; i++) {
            const start = process.hrtime.bigint()
            await call()
            took.push(Number(process.hrtime.bigint() - start) / 1000)
          }
          took.sort((a, b) => a - b)
          return [took[1000], took[1980], took[0]]
        }
        const message = JSON.stringify({
          echo: await measure(() => effects.echo({ message: 'x' })),
          status: await measure(() => effects.getStatus({})),
          health: await measure(() => effects.setHealth({ id: 'm', name: 'M', result: 'success', message: null })),
        })
        return { version: '1', title: 'measured', message, result: null }
      }
      if (id === 'relay') {
        const result = await effects.action.run({ packageId: test.relay, actionId: 'count' })
        await fs.appendFile(`${volume}/relayed`, `${result.title}\n`)
        return result
      }
      if (!input || !input.name) throw new Error('a name is needed')
      await fs.writeFile(`${volume}/name`, input.name)
      await effects.restart()
      return { version: '0', message: `it is ${input.name} now`, value: input.name, copyable: true, qr: false }
    },
  }),
}
