//! nchan among the peers: nginx's publish-subscribe module. What it speaks is `dialect::nchan`.
//! Measured: 1.3.6 in nginx 1.22.1 (Debian). Settings (`bench/peers/nchan/nginx.conf`): a worker a core, `reuseport`,
//! no logs, no deflate, a message buffer longer than any phase, so that a subscriber who is behind misses nothing.

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::nchan::Nchan;

const CONFIG: &str = include_str!("../../peers/nchan/nginx.conf");
/// Where packages put the module.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];

impl Peer for Nchan {
    fn path(&self) -> &'static str {
        "/sub"
    }

    fn find(&self, kit: &Kit) -> Result<Program, String> {
        let nginx = kit.program("nginx")?;
        module().ok_or("nginx is here, its module is not: install libnginx-mod-nchan")?;
        let version = kit.answer(&nginx, &["-v"]).replace("nginx version: nginx/", "");
        let module = kit.package("libnginx-mod-nchan").unwrap_or_else(|| "of unknown version".to_owned());
        Ok(Program { path: nginx, version: format!("{module} in nginx {version}") })
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        let module = module().unwrap_or_default();
        let config = site.write("nginx.conf", &site.fill(CONFIG).replace("{module}", module))?;
        let folder = site.folder().display().to_string();
        Ok(Launch::new(program).arguments(&["-p", &folder, "-e", "stderr", "-c", &config]))
    }
}

fn module() -> Option<&'static str> {
    MODULES.into_iter().find(|path| std::path::Path::new(path).exists())
}
