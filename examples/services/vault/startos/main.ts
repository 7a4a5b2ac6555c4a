import { sdk } from './sdk'
import { webPort } from './interfaces'
import { settings } from './settings'

export const main = sdk.setupMain(async ({ effects }) => {
  // Read with const: when the owner changes it, the service restarts.
  const limit = await settings.read(s => s.limit).const(effects)

  const mounts = sdk.Mounts.of()
    .mountVolume({ volumeId: 'main', subpath: null, mountpoint: '/data', readonly: false })
    .mountAssets({ subpath: 'www', mountpoint: '/www' })
  const web = sdk.SubContainer.of(effects, { imageId: 'web' }, mounts, 'web')

  return sdk.Daemons.of(effects)
    .addOneshot('prepare', {
      subcontainer: web,
      exec: { command: ['sh', '-c', 'mkdir -p /data/entries && rm -f /data/entries/*.new'] },
      requires: [],
    })
    .addDaemon('web', {
      subcontainer: web,
      exec: { command: ['busybox', 'httpd', '-f', '-p', String(webPort), '-h', '/www'], env: { LIMIT: String(limit ?? 1000) } },
      ready: {
        display: 'Web server',
        fn: () => sdk.healthCheck.checkPortListening(effects, webPort, { successMessage: 'The vault is open', errorMessage: 'The vault is not open' }),
      },
      requires: ['prepare'],
    })
    .addHealthCheck('store', {
      ready: {
        display: 'Store',
        fn: () => sdk.healthCheck.runHealthScript(['sh', '-c', 'touch /data/entries/.probe && rm /data/entries/.probe'], web, { message: () => 'Entries can be written', errorMessage: 'Entries cannot be written' }),
      },
      requires: ['web'],
    })
})
