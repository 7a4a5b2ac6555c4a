import { StartSdk, T, VersionGraph, VersionInfo, buildManifest } from '@start9labs/start-sdk'
import { description as d } from './description'

const source: T.SDKManifest = {
  id: d.id,
  title: d.title,
  license: d.license,
  packageRepo: d.links.package,
  upstreamRepo: d.links.upstream,
  marketingUrl: d.links.marketing as string, // null is fine, whatever the type says
  donationUrl: d.links.donation,
  description: d.description,
  volumes: d.volumes,
  images: Object.fromEntries(
    Object.entries(d.images).map(([id, i]) => [
      id,
      { source: 'packed', arch: i.arch, emulateMissingAs: i.emulateMissingAs, nvidiaContainer: i.nvidia } as unknown as T.SDKManifest['images'][string],
    ]),
  ),
  dependencies: Object.fromEntries(
    Object.entries(d.dependencies).map(([id, dep]) => [
      id,
      {
        description: dep.description,
        optional: dep.optional,
        ...(dep.title !== null && dep.icon !== null ? { metadata: { title: dep.title, icon: dep.icon } } : { s9pk: null }),
      },
    ]),
  ),
  hardwareAcceleration: d.hardware.gpu,
  userspaceFilesystems: d.hardware.fuse,
  virtualNetworking: d.hardware.tun,
  hardwareRequirements: { ram: d.hardware.ram ?? undefined },
}

export const sdk = StartSdk.of().withManifest(source).build(true)

// The version is checked where the package is made.
const current = VersionInfo.of({ version: d.version as never, releaseNotes: d.releaseNotes, migrations: {} })

export const versionGraph = VersionGraph.of({ current, other: [] })

export const manifest = buildManifest(versionGraph, source as never)
