import { sdk } from './sdk'
import { uiPort } from './interfaces'

export const main = sdk.setupMain(async ({ effects }) => {
  console.info('Starting Hello World')
  const web = sdk.SubContainer.of(
    effects,
    { imageId: 'web' },
    sdk.Mounts.of().mountVolume({ volumeId: 'main', subpath: null, mountpoint: '/data', readonly: true }),
    'web',
  )
  return sdk.Daemons.of(effects).addDaemon('web', {
    subcontainer: web,
    exec: { command: ['busybox', 'httpd', '-f', '-vv', '-p', String(uiPort), '-h', '/data/www'] },
    ready: {
      display: 'Web page',
      fn: () =>
        sdk.healthCheck.checkPortListening(effects, uiPort, {
          successMessage: 'The page is served',
          errorMessage: 'The page is not served',
        }),
    },
    requires: [],
  })
})
