import { counter } from './init'
import { sdk } from './sdk'

/** Its daemons follow counter.json: a change touches the one that shows it and no other. */
export const main = sdk.setupMain(async ({ effects }) =>
  sdk.Daemons.dynamic(effects, async ({ effects }) => {
    const n = await counter.read(c => c.n).const(effects)
    const sub = (name: string) =>
      sdk.SubContainer.of(effects, { imageId: 'main' }, sdk.Mounts.of().mountVolume({ volumeId: 'data', subpath: null, mountpoint: '/data', readonly: false }), name)
    const quick = sdk.trigger.cooldownTrigger(100)
    return sdk.Daemons.of(effects)
      .addDaemon('web', {
        subcontainer: sub('web'),
        exec: { command: ['sh', '-c', 'cat /proc/self/stat | cut -d" " -f1 >/data/web.pid; exec busybox httpd -f -p 8080 -h /data'] },
        ready: { display: 'Web', fn: () => sdk.healthCheck.checkPortListening(effects, 8080, { successMessage: 'served', errorMessage: 'not served' }), trigger: quick },
        requires: [],
      })
      .addDaemon('counter', {
        subcontainer: sub('counter'),
        exec: { command: ['sh', '-c', 'echo "$N" >>/data/counted.txt; exec sleep 1000000'], env: { N: String(n) } },
        ready: { display: null, fn: async () => ({ result: 'success', message: 'counts' }), trigger: quick },
        requires: ['web'],
      })
  }),
)
