"""The endpoint as AWS's own client sees it: signatures, typed errors, pages, read-back."""

import datetime
import os
import sys

import boto3
import botocore.auth
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["FLEET_ENDPOINT"]
KEY = os.environ["FLEET_KEY"]
SECRET = os.environ["FLEET_SECRET"]


def client(region="us-east-1", secret=SECRET, key=KEY):
    return boto3.client(
        "codedeploy",
        endpoint_url=ENDPOINT,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def fails(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}: {error}"
        # Errors that CodeDeploy models are exceptions of their own.
        if modelled(call, code):
            assert isinstance(error, getattr(call.__self__.exceptions, code)), type(error)
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was expected")


def modelled(call, code):
    names = [shape.name for shape in call.__self__.meta.service_model.error_shapes]
    return code in names


def signatures(cd):
    assert cd.list_applications()["applications"] == []
    fails("InvalidSignatureException", client(region="eu-west-1").list_applications)
    fails("InvalidSignatureException", client(secret="x" * 40).list_applications)
    fails("UnrecognizedClientException", client(key="AKIAUNKNOWN").list_applications)

    changed = client()

    changed.meta.events.register_last("before-send.codedeploy", change_after_signing)
    fails("InvalidSignatureException", changed.list_applications)

    real = botocore.auth.get_current_datetime
    for minutes in (-6, 6):
        botocore.auth.get_current_datetime = lambda *a, **k: real(*a, **k) + datetime.timedelta(minutes=minutes)
        try:
            fails("InvalidSignatureException", client().list_applications)
        finally:
            botocore.auth.get_current_datetime = real
    assert client().list_applications()["applications"] == []


def change_after_signing(request, **_):
    """One byte of the body, after it was signed."""
    request.body = request.body[:-1] + b" }"
    request.headers["Content-Length"] = str(len(request.body))


def applications(cd):
    made = cd.create_application(applicationName="shop", computePlatform="ECS", tags=[{"Key": "team", "Value": "a"}])
    assert len(made["applicationId"]) == 36
    fails("ApplicationAlreadyExistsException", cd.create_application, applicationName="shop")
    fails("InvalidApplicationNameException", cd.create_application, applicationName="a b")
    fails("InvalidComputePlatformException", cd.create_application, applicationName="f", computePlatform="Lambda")
    fails("ApplicationDoesNotExistException", cd.get_application, applicationName="nothing")
    info = cd.get_application(applicationName="shop")["application"]
    assert info["computePlatform"] == "ECS" and info["applicationId"] == made["applicationId"]
    age = datetime.datetime.now(datetime.timezone.utc) - info["createTime"]
    assert abs(age.total_seconds()) < 60
    arn = "arn:aws:codedeploy:us-east-1:123456789012:application:shop"
    cd.tag_resource(ResourceArn=arn, Tags=[{"Key": "owner", "Value": "me"}])
    tags = {t["Key"]: t["Value"] for t in cd.list_tags_for_resource(ResourceArn=arn)["Tags"]}
    assert tags == {"team": "a", "owner": "me"}, tags
    cd.untag_resource(ResourceArn=arn, TagKeys=["team"])
    assert cd.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "owner", "Value": "me"}]

    names = [f"app-{n:03}" for n in range(230)]
    for name in names:
        cd.create_application(applicationName=name)
    pages = list(cd.get_paginator("list_applications").paginate())
    assert len(pages) == 3, len(pages)
    assert [n for p in pages for n in p["applications"]] == names + ["shop"]
    fails("InvalidNextTokenException", cd.list_applications, nextToken="nonsense")
    for name in names:
        cd.delete_application(applicationName=name)
    assert cd.list_applications()["applications"] == ["shop"]


def configs(cd):
    names = cd.list_deployment_configs()["deploymentConfigsList"]
    assert len(names) == 17, names
    for name in names:
        info = cd.get_deployment_config(deploymentConfigName=name)["deploymentConfigInfo"]
        assert info["deploymentConfigName"] == name
    linear = cd.get_deployment_config(deploymentConfigName="CodeDeployDefault.ECSLinear10PercentEvery3Minutes")
    routing = linear["deploymentConfigInfo"]["trafficRoutingConfig"]
    assert routing == {
        "type": "TimeBasedLinear",
        "timeBasedLinear": {"linearPercentage": 10, "linearInterval": 3},
    }, routing
    one = cd.get_deployment_config(deploymentConfigName="CodeDeployDefault.OneAtATime")
    assert one["deploymentConfigInfo"]["minimumHealthyHosts"] == {"type": "MOST_CONCURRENCY", "value": 1}
    cd.create_deployment_config(
        deploymentConfigName="two", minimumHealthyHosts={"type": "HOST_COUNT", "value": 2}
    )
    fails(
        "DeploymentConfigAlreadyExistsException",
        cd.create_deployment_config,
        deploymentConfigName="two",
        minimumHealthyHosts={"type": "HOST_COUNT", "value": 2},
    )
    fails(
        "InvalidMinimumHealthyHostValueException",
        cd.create_deployment_config,
        deploymentConfigName="bad",
        minimumHealthyHosts={"type": "FLEET_PERCENT", "value": 101},
    )
    fails("DeploymentConfigDoesNotExistException", cd.get_deployment_config, deploymentConfigName="x")
    cd.delete_deployment_config(deploymentConfigName="two")


GROUP = {
    "applicationName": "shop",
    "deploymentGroupName": "production",
    "serviceRoleArn": "arn:aws:iam::123456789012:role/deploy",
    "deploymentConfigName": "CodeDeployDefault.ECSAllAtOnce",
    "deploymentStyle": {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
    "blueGreenDeploymentConfiguration": {
        "terminateBlueInstancesOnDeploymentSuccess": {"action": "TERMINATE", "terminationWaitTimeInMinutes": 0},
        "deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 60},
    },
    "autoRollbackConfiguration": {"enabled": True, "events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST"]},
}


def groups(cd):
    made = cd.create_deployment_group(**GROUP)
    fails("DeploymentGroupAlreadyExistsException", cd.create_deployment_group, **GROUP)
    fails("DeploymentConfigDoesNotExistException", cd.create_deployment_group,
          **{**GROUP, "deploymentGroupName": "x", "deploymentConfigName": "nothing"})
    fails("InvalidBlueGreenDeploymentConfigurationException", cd.create_deployment_group,
          **{**GROUP, "deploymentGroupName": "x", "blueGreenDeploymentConfiguration": {
              "deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT"}}})
    info = cd.get_deployment_group(applicationName="shop", deploymentGroupName="production")["deploymentGroupInfo"]
    assert info["deploymentGroupId"] == made["deploymentGroupId"] and info["computePlatform"] == "ECS"
    for member, value in GROUP.items():
        assert info[member] == value, (member, info[member])
    cd.update_deployment_group(
        applicationName="shop", currentDeploymentGroupName="production",
        deploymentConfigName="CodeDeployDefault.ECSCanary10Percent5Minutes")
    info = cd.get_deployment_group(applicationName="shop", deploymentGroupName="production")["deploymentGroupInfo"]
    assert info["deploymentConfigName"] == "CodeDeployDefault.ECSCanary10Percent5Minutes"
    assert info["deploymentStyle"] == GROUP["deploymentStyle"]
    assert cd.list_deployment_groups(applicationName="shop")["deploymentGroups"] == ["production"]
    fails("DeploymentGroupDoesNotExistException", cd.get_deployment_group,
          applicationName="shop", deploymentGroupName="nothing")


def filters(cd):
    """Flat filters or a set of groups, never both; the one takes the place of the other."""
    group = {"applicationName": "hosts", "deploymentGroupName": "production"}
    role = {"Key": "role", "Value": "worker", "Type": "KEY_AND_VALUE"}
    zones = [{"Key": "zone", "Value": zone, "Type": "KEY_AND_VALUE"} for zone in "ab"]
    cd.create_application(applicationName="hosts", computePlatform="Server")
    new = {**group, "serviceRoleArn": GROUP["serviceRoleArn"]}
    fails("InvalidOnPremisesTagCombinationException", cd.create_deployment_group, **new,
          onPremisesInstanceTagFilters=[role], onPremisesTagSet={"onPremisesTagSetList": [zones]})
    fails("TagSetListLimitExceededException", cd.create_deployment_group, **new,
          onPremisesTagSet={"onPremisesTagSetList": [[role]] * 4})
    fails("InvalidTagException", cd.create_deployment_group, **new,
          onPremisesInstanceTagFilters=[{"Key": "role", "Type": "KEY_AND_VALUE"}])
    fails("DeploymentGroupDoesNotExistException", cd.get_deployment_group, **group)

    cd.create_deployment_group(**new, onPremisesInstanceTagFilters=[role, *zones])
    info = cd.get_deployment_group(**group)["deploymentGroupInfo"]
    assert info["onPremisesInstanceTagFilters"] == [role, *zones] and "onPremisesTagSet" not in info, info
    current = {"applicationName": "hosts", "currentDeploymentGroupName": "production"}
    both = {"onPremisesTagSetList": [[role], zones]}
    fails("InvalidOnPremisesTagCombinationException", cd.update_deployment_group, **current,
          onPremisesInstanceTagFilters=[role], onPremisesTagSet=both)
    cd.update_deployment_group(**current, onPremisesTagSet=both)
    info = cd.get_deployment_group(**group)["deploymentGroupInfo"]
    assert info["onPremisesTagSet"] == both and "onPremisesInstanceTagFilters" not in info, info
    cd.delete_application(applicationName="hosts")


def deployments(cd):
    revision = {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "tgz"}}
    group = {"applicationName": "shop", "deploymentGroupName": "production"}
    fails("RevisionRequiredException", cd.create_deployment, **group)
    fails("InvalidRevisionException", cd.create_deployment, **group,
          revision={"revisionType": "GitHub", "gitHubLocation": {"repository": "a/b", "commitId": "c"}})
    fails("DescriptionTooLongException", cd.create_deployment, **group, revision=revision, description="x" * 257)
    message = fails("InvalidTargetInstancesException", cd.create_deployment, **group, revision=revision)
    assert "PUT /services/shop/production" in message
    fails("DeploymentDoesNotExistException", cd.get_deployment, deploymentId="d-ABCDEFGHI")
    fails("InvalidDeploymentIdException", cd.get_deployment, deploymentId="12")
    fails("DeploymentDoesNotExistException", cd.stop_deployment, deploymentId="d-ABCDEFGHI")
    fails("ApplicationNameRequiredException", cd.list_deployments, deploymentGroupName="production")
    fails("DeploymentGroupNameRequiredException", cd.list_deployments, applicationName="shop")
    fails("InvalidDeploymentStatusException", cd.list_deployments, includeOnlyStatuses=["Odd"])
    assert cd.list_deployments(**group)["deployments"] == []
    assert cd.batch_get_deployments(deploymentIds=["d-ABCDEFGHI"])["deploymentsInfo"] == []
    cd.register_application_revision(applicationName="shop", revision=revision)


def instances(cd):
    fails("IamArnRequiredException", cd.register_on_premises_instance, instanceName="h1")
    cd.register_on_premises_instance(instanceName="h1", iamUserArn="arn:aws:iam::123456789012:user/h1")
    fails("InstanceNameAlreadyRegisteredException", cd.register_on_premises_instance,
          instanceName="h1", iamUserArn="arn:aws:iam::123456789012:user/h1")
    tag = {"Key": "env", "Value": "test"}
    cd.add_tags_to_on_premises_instances(tags=[tag], instanceNames=["h1"])
    info = cd.get_on_premises_instance(instanceName="h1")["instanceInfo"]
    assert info["tags"] == [tag], info
    found = cd.list_on_premises_instances(tagFilters=[{"Key": "env", "Type": "KEY_ONLY"}])
    assert found["instanceNames"] == ["h1"]
    assert cd.list_on_premises_instances(tagFilters=[{**tag, "Value": "x", "Type": "KEY_AND_VALUE"}])["instanceNames"] == []
    cd.remove_tags_from_on_premises_instances(tags=[tag], instanceNames=["h1"])
    cd.deregister_on_premises_instance(instanceName="h1")
    assert cd.list_on_premises_instances(registrationStatus="Deregistered")["instanceNames"] == ["h1"]
    fails("InstanceNotRegisteredException", cd.get_on_premises_instance, instanceName="h9")
    fails("OperationNotSupportedException", cd.list_git_hub_account_token_names)


def main():
    cd = client()
    for part in (signatures, applications, configs, groups, filters, deployments, instances):
        part(cd)
        print("ok", part.__name__)
    cd.delete_deployment_group(applicationName="shop", deploymentGroupName="production")
    cd.delete_application(applicationName="shop")


if __name__ == "__main__":
    sys.exit(main())
