'use strict'
// A package as the StartOS SDK builds them, by hand: it drives subcontainers
// through start-container in the SDK's spelling.
const cp = require('node:child_process')
const fs = require('node:fs/promises')
const { promisify } = require('node:util')
const execFile = promisify(cp.execFile)

async function subcontainer(effects, command) {
  const [root, guid] = await effects.subcontainer.createFs({ imageId: 'main', name: null })
  const leader = cp.spawn('start-container', ['subcontainer', 'launch', root], { killSignal: 'SIGKILL', stdio: 'inherit' })
  const ended = new Promise(resolve => leader.on('exit', resolve))
  for (let i = 0; !(await fs.stat(`${root}/proc/1`).catch(() => null)); i++) {
    if (i > 5000) throw new Error('no leader')
    await new Promise(resolve => setTimeout(resolve, 1))
  }
  await execFile('start-container', ['bind-mount', '--source', '/media/startos/volumes/main', '--target', `${root}/data`, '--recursive'])
  return {
    args: ['subcontainer', 'exec', '--env-file=/media/startos/images/main.env', '--user=app', '--workdir=/data', root],
    async destroy() {
      leader.kill('SIGTERM')
      await ended
      await effects.subcontainer.destroyFs({ guid })
    },
  }
}

exports.init = async ({ effects, kind }) => {
  console.log('init', kind)
  await effects.setDataVersion({ version: '1.0:0' })
}

exports.main = async ({ effects }) => ({
  async build() {
    const sub = await subcontainer(effects)
    const child = cp.spawn('start-container', [...sub.args, 'sh', '-c', 'trap "echo workload ends; exit 0" TERM; echo "up as $(id -u) in $PWD with $FROM"; while :; do sleep 0.02; done'], { stdio: 'inherit' })
    const code = new Promise(resolve => child.on('exit', resolve))
    return {
      async term() {
        child.kill('SIGTERM')
        console.log('workload status', await code)
        await sub.destroy()
      },
    }
  },
})

exports.actions = {
  get: id =>
    id === 'look' && {
      getInput: async () => null,
      async run({ effects, input }) {
        const sub = await subcontainer(effects)
        try {
          const child = cp.spawn('start-container', [...sub.args, 'sh', '-c', 'cat; pwd; exit 3'])
          child.stdin.end(input)
          let out = ''
          for await (const chunk of child.stdout) out += chunk
          const status = child.exitCode ?? (await new Promise(resolve => child.on('exit', resolve)))
          const cli = await execFile('start-container', ['--socket', `${process.env.RPC}/host.sock`, 'get-data-version'])
          return { out, status, version: cli.stdout.trim() }
        } finally {
          await sub.destroy()
        }
      },
    },
}

exports.uninit = async ({ effects, target }) => {
  console.log('uninit to', String(target))
  await effects.setDataVersion({ version: target && String(target) })
}
