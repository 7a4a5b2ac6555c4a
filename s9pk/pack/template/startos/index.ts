import { buildManifest, StartSdk, VersionGraph, VersionInfo } from '@start9labs/start-sdk'
import { manifest as source } from './manifest'

const sdk = StartSdk.of().withManifest(source).build(true)

const current = VersionInfo.of({ version: '1.0.0:0', releaseNotes: 'The first release.', migrations: {} })
const versionGraph = VersionGraph.of({ current, other: [] })

export const manifest = buildManifest(versionGraph, source)

const uiPort = 8080

/** What runs, and how to tell that it is well. */
export const main = sdk.setupMain(async ({ effects }) =>
  sdk.Daemons.of(effects).addDaemon('web', {
    subcontainer: sdk.SubContainer.of(
      effects,
      { imageId: 'main' },
      sdk.Mounts.of().mountVolume({ volumeId: 'main', subpath: null, mountpoint: '/data', readonly: false }),
      'web',
    ),
    exec: { command: ['/usr/bin/busybox', 'httpd', '-f', '-p', String(uiPort), '-h', '/srv'] },
    ready: {
      display: 'Web page',
      fn: () =>
        sdk.healthCheck.checkPortListening(effects, uiPort, {
          successMessage: 'The page is served',
          errorMessage: 'The page is not served',
        }),
    },
    requires: [],
  }),
)

/** How the service is reached. */
const setInterfaces = sdk.setupInterfaces(async ({ effects }) => {
  const origin = await sdk.MultiHost.of(effects, 'web').bindPort(uiPort, { protocol: 'http' })
  const ui = sdk.createInterface(effects, {
    name: 'Web page',
    id: 'ui',
    description: 'The page of the service',
    type: 'ui',
    masked: false,
    schemeOverride: null,
    username: null,
    path: '',
    query: {},
  })
  return [await origin.export([ui])]
})

const setDependencies = sdk.setupDependencies(async () => ({}))
const backups = sdk.setupBackups(async () => sdk.Backups.ofVolumes('main'))

export const createBackup = backups.createBackup
export const actions = sdk.Actions.of()
export const init = sdk.setupInit(backups.restoreInit, versionGraph, setInterfaces, setDependencies, actions)
export const uninit = sdk.setupUninit(versionGraph)
