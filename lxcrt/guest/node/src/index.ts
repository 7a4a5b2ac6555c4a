import type { Server } from 'node:net'
import * as path from 'node:path'
import { HostClient } from './host'
import { Runtime } from './runtime'
import { serve } from './service'

const PACKAGE = '/usr/lib/startos/package'
const RPC = '/media/startos/rpc'

/** Serves the package in a folder over the two sockets of another. */
export async function run(folder: string, rpc: string, exit: (code: number) => void): Promise<{ runtime: Runtime; server: Server }> {
  const host = new HostClient(path.join(rpc, 'host.sock'))
  const runtime = new Runtime(folder, host, () => exit(0))
  return { runtime, server: await serve(path.join(rpc, 'service.sock'), runtime) }
}

/** Serves until `exit` or a stop signal ends the process. */
export async function main(folder = PACKAGE, rpc = RPC): Promise<void> {
  // A package's forgotten promise must not take its service down.
  process.on('unhandledRejection', e => console.error('unhandled rejection:', e))
  const { runtime } = await run(folder, rpc, code => process.exit(code))
  let ending = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (ending) return
      ending = true
      void runtime.shutdown().then(() => process.exit(0))
    })
  }
}

if (require.main === module) {
  main().catch(e => {
    console.error(e)
    process.exit(1)
  })
}
